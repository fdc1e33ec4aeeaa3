"""``build_engine.sh``, run by a real shell; a recorder in trtexec's place shows the arguments and writes some bytes.

That tests the script, not TensorRT: only a device tells whether trtexec builds the engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import edgetl
from edgetl.backends import BACKENDS
from edgetl.backends.tensorrt import shell_script
from edgetl.core.targets import find_target
from edgetl.runtime import build_engine
from tests.backends.networks import CASES

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
RECORDER = """#!/bin/sh
printf '&&&& RUNNING TensorRT.trtexec [TensorRT v%s] [b18] # trtexec\\n' "$VERSION"
[ "$1" != --help ] || exit 0
printf '%s\\n' "$@" >"$LOG"
for argument; do
    case $argument in
        --saveEngine=*) [ "${FAIL:-0}" = silent ] || printf 'an engine' >"${argument#*=}" ;;
        --timingCacheFile=*) printf 'timings' >>"${argument#*=}" ;;
    esac
done
[ "${FAIL:-0}" != 1 ]
"""


@pytest.fixture
def bundle(small_int8: Callable[[str], Path], tmp_path: Path) -> Path:
    """A compiled folder, with a recorder beside it."""
    folder = tmp_path / "a bundle"
    BACKENDS["tensorrt"].compile(small_int8("tensorrt-int8"), find_target("jetson"), folder)
    for name, program in {"trtexec": RECORDER, "nvidia-smi": "#!/bin/sh\necho 'NVIDIA RTX A2000 12GB'\n"}.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    return folder


def run(
    folder: Path, *arguments: str, shell: str = SHELLS[0], version: str = "100300", **more: str
) -> subprocess.CompletedProcess[str]:
    own = {"TRTEXEC": str(folder.parent / "trtexec"), "LOG": str(folder.parent / "log"), "VERSION": version}
    own["PATH"] = f"{folder.parent}{os.pathsep}{os.environ['PATH']}"
    command = [shell, str(folder / "build_engine.sh"), *arguments]
    environment = {**os.environ, **own, **more}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment)


def asked(folder: Path) -> list[str]:
    return (folder.parent / "log").read_text().splitlines()


def left(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.name.startswith((".", "model-", "timing-")))


@pytest.mark.parametrize("shell", SHELLS)
def test_it_builds_once_under_the_name_that_python_gives(shell: str, bundle: Path) -> None:
    done = run(bundle, "--sm", "87", "--batch", "4", "--workspace-mb", "512", shell=shell)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    digest = hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()
    identity = build_engine.Identity("10.3.0", (8, 7), told["gpu"], build_engine.system_release(), 4, 512, digest)
    engine = identity.engine(bundle)
    assert told.pop("build_seconds") >= 0
    assert told == {
        "engine": str(engine),
        "bytes": len(b"an engine"),
        "reused": False,
        "module": "trtexec",
        "tensorrt": "10.3.0",
        "compute_capability": "8.7",
        "gpu": build_engine.board() or "NVIDIA RTX A2000 12GB",
        "system": build_engine.system_release(),
        "batch": 4,
        "model_sha256": digest,
    }
    # Python takes what the shell made, and the other way round.
    assert build_engine.is_whole(engine)
    assert left(bundle) == [engine.name, f"{engine.name}.sha256", f"timing-{identity.machine}.cache"]
    fixed = [one for one in asked(bundle) if not one.startswith(("--saveEngine", "--timingCacheFile"))]
    assert fixed == [
        f"--onnx={bundle / 'model.onnx'}",
        "--skipInference",
        "--stronglyTyped",
        "--minShapes=image:1x32x32x3",
        "--optShapes=image:4x32x32x3",
        "--maxShapes=image:4x32x32x3",
        "--memPoolSize=workspace:512",
    ]
    again = run(bundle, "--sm", "87", "--batch", "4", "--workspace-mb", "512", shell=shell)
    assert json.loads(again.stdout)["reused"]


def test_a_damaged_engine_is_built_again_and_timings_are_kept(bundle: Path) -> None:
    engine = Path(json.loads(run(bundle, "--sm", "87").stdout)["engine"])
    engine.write_bytes(b"an eng")
    assert not json.loads(run(bundle, "--sm", "87").stdout)["reused"]
    assert engine.read_bytes() == b"an engine"
    (cache,) = bundle.glob("timing-*.cache")
    assert cache.read_bytes() == b"timingstimings"
    assert json.loads(run(bundle, "--sm", "87").stdout)["reused"]
    assert not json.loads(run(bundle, "--sm", "87", "--rebuild").stdout)["reused"]


def test_other_gpu_version_batch_limit_or_model_is_another_engine(bundle: Path) -> None:
    names = {json.loads(run(bundle, "--sm", "87").stdout)["engine"]}
    names.add(json.loads(run(bundle, "--sm", "110").stdout)["engine"])
    names.add(json.loads(run(bundle, "--sm", "87", "--batch", "2").stdout)["engine"])
    names.add(json.loads(run(bundle, "--sm", "87", version="101602").stdout)["engine"])
    names.add(json.loads(run(bundle, "--sm", "87", "--workspace-mb", "512").stdout)["engine"])
    (bundle.parent / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA RTX A6000'\n")
    names.add(json.loads(run(bundle, "--sm", "87").stdout)["engine"])
    (bundle / "model.onnx").write_bytes(b"another model")
    names.add(json.loads(run(bundle, "--sm", "87").stdout)["engine"])
    assert len(names) == (6 if build_engine.board() else 7), "a Jetson has but one board"


def test_tensorrt_11_needs_no_flag_for_strong_typing(bundle: Path) -> None:
    done = run(bundle, "--sm", "110", version="110401")
    assert json.loads(done.stdout)["tensorrt"] == "11.4.1"
    assert json.loads(done.stdout)["compute_capability"] == "11.0"
    assert "--stronglyTyped" not in asked(bundle)


@pytest.mark.parametrize("failure", ["1", "silent"])
def test_a_failed_build_leaves_nothing(failure: str, bundle: Path) -> None:
    done = run(bundle, "--sm", "87", FAIL=failure)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "see its messages above" in done.stderr
    assert left(bundle) == []


@pytest.mark.parametrize(
    ("arguments", "changes", "complaint"),
    [
        ((), {"version": "8601"}, "TensorRT 10 or newer is needed, this is v8601: install JetPack 6.1"),
        ((), {"TRTEXEC": "/nowhere/trtexec"}, "TRTEXEC names /nowhere/trtexec, which is no program"),
        (("--batch", "many"), {}, "--batch takes a number, not 'many'"),
        (("--batch",), {}, "--batch needs a value"),
        (("--fast",), {}, "unknown option --fast"),
        (("--model", "/nowhere.onnx"), {}, "copy the whole folder of the bundle"),
    ],
)
def test_it_refuses_in_one_clear_line(
    arguments: tuple[str, ...], changes: dict[str, str], complaint: str, bundle: Path
) -> None:
    done = run(bundle, *arguments, **changes)
    assert done.returncode == 1
    assert done.stdout == ""
    assert complaint in done.stderr.splitlines()[-1]
    assert left(bundle) == []


def test_without_trtexec_or_gpu_it_says_so(bundle: Path) -> None:
    tools = bundle.parent / "tools"
    tools.mkdir()
    for name in ("sha256sum", "cut", "tr", "sed", "head", "uname", "dirname", "cat", "date", "wc"):
        (tools / name).symlink_to(shutil.which(name) or name)
    if not Path("/usr/src/tensorrt/bin/trtexec").exists():
        done = run(bundle, TRTEXEC="", PATH=str(tools), shell=shutil.which(SHELLS[0]) or "sh")
        assert done.returncode == 1
        assert "no trtexec here" in done.stderr
    if not Path("/proc/device-tree/compatible").exists():
        done = run(bundle, PATH=str(tools), shell=shutil.which(SHELLS[0]) or "sh")
        assert done.returncode == 1
        assert "no NVIDIA GPU was found" in done.stderr


def test_a_fixed_batch_has_no_profile() -> None:
    text = shell_script(CASES["relu"]).decode()
    assert "\nleast=''\nusual=''\nmost=''\n" in text


def test_the_shell_checker_has_nothing_to_say(bundle: Path) -> None:
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    programs = sorted(Path(edgetl.__file__).parent.rglob("*.sh"))
    assert {"build_engine.sh", "connect.sh", "run.sh"} <= {program.name for program in programs}
    for program in (bundle / "build_engine.sh", *programs):
        done = subprocess.run([checker, str(program)], capture_output=True, text=True, check=False)
        assert done.stdout == ""
