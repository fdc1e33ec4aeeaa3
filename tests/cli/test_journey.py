"""``edgetl run``: what a file tells is what the commands would do, once, whatever interrupts it, and is told back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image

from edgetl.base.errors import EdgetlError
from edgetl.cli.app import build
from edgetl.cli.journey.file import COMMANDS, keys_of, read_journey
from edgetl.cli.journey.options import JOURNEYS, options_of
from edgetl.cli.journey.stages import worst
from edgetl.core.bundle import CERTIFICATE, load_bundle
from edgetl.core.run import load_run
from tests.conftest import ROOT
from tests.test_readme import write_foreign

Here = Callable[..., subprocess.CompletedProcess[str]]

TRAIN = """
[finetune]
data = "photos"
backbone = "timm/test_efficientnet"
weights = "none"
image-size = 32
epochs = 3
learning-rate = 0.003
"""
JOURNEY = f"""
out = "work"
{TRAIN}
[export]
target = "x86-generic"
precision = "fp32"
bench = false

[verify]
margin = 0.3

[report]
"""


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode in (0, 3, 4), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit_status"] == done.returncode
    return found


def unchanged(found: dict[str, Any]) -> list[str]:
    return [stage["stage"] for stage in found["stages"] if stage["unchanged"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, edgetl: Here) -> Path:
    """A folder with ``photos/``, ``journey.toml`` and what that came to in ``work/``, run from elsewhere."""
    folder = tmp_path_factory.mktemp("journey")
    for hue, name in enumerate(("red", "green", "blue")):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(24):
            # Faint enough that training has something to do.
            picture = np.random.default_rng([hue, index]).normal(100, 50, (40, 48, 3))
            picture[..., hue] += 5
            pixels = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
            pixels.save(folder / "photos" / name / f"{index:02d}.png")
    (folder / "journey.toml").write_text(JOURNEY)
    found = told(edgetl("run", folder / "journey.toml", "--json", "--quiet"))
    assert [stage["stage"] for stage in found["stages"]] == [
        "finetune",
        "export x86-generic",
        "verify x86-generic",
        "report",
    ]
    assert unchanged(found) == []
    return folder


@pytest.fixture
def again(place: Path, tmp_path: Path) -> Path:
    """A copy of the file and of what came of it, to go on with: nothing of it knows where it lay."""
    shutil.copytree(place / "work", tmp_path / "work")
    (tmp_path / "photos").symlink_to(place / "photos")
    shutil.copy(place / "journey.toml", tmp_path)
    return tmp_path


def test_a_journey_is_what_its_commands_would_do(place: Path) -> None:
    run, bundle = load_run(place / "work" / "run"), load_bundle(place / "work" / "bundles" / "x86-generic")
    assert run.metrics.best_epoch > 0
    assert run.settings["data"] == str((place / "photos").resolve())
    assert bundle.manifest.run is not None
    assert (bundle.manifest.run.digest, bundle.precision) == (run.digest, "fp32")
    assert bundle.certificate is not None
    assert bundle.certificate.margin == 0.3
    assert "x86-generic" in (place / "work" / "report.html").read_text()


def test_what_is_done_is_not_done_again(place: Path, here: Here) -> None:
    certificate = place / "work" / "bundles" / "x86-generic" / CERTIFICATE
    before = certificate.stat()
    found = told(here("run", place / "journey.toml", "--json", "--quiet"))
    assert unchanged(found) == ["export x86-generic", "verify x86-generic", "report"]
    assert found["stages"][2]["outcome"]["margin"] == 0.3
    assert certificate.stat().st_mtime_ns == before.st_mtime_ns


def test_a_changed_option_is_done_again_with_what_follows_from_it(again: Path, here: Here) -> None:
    file = again / "journey.toml"
    # The data lie elsewhere now, which is another run: of the stages behind it this is no matter.
    file.write_text(JOURNEY.replace('"photos"', json.dumps(str((again / "photos").resolve()))))
    assert unchanged(told(here("run", file, "--json", "-q"))) == ["export x86-generic", "verify x86-generic", "report"]
    file.write_text(file.read_text().replace("0.3", "0.25"))
    assert unchanged(told(here("run", file, "--json", "-q"))) == ["export x86-generic"]
    (again / "work" / "report.html").unlink()
    assert unchanged(told(here("run", file, "--json", "-q"))) == ["export x86-generic", "verify x86-generic"]


def test_a_certificate_that_fails_does_not_stop_a_journey_and_decides_its_status(again: Path, here: Here) -> None:
    bundle = load_bundle(again / "work" / "bundles" / "x86-generic")
    samples = bundle.dataset.split("certify")
    wrong = np.eye(3, dtype=np.float32)[(bundle.dataset.labels("certify") + 1) % 3] * 9
    np.savez(again / "wrong.npz", logits=wrong, sha256=np.array([sample.sha256 for sample in samples]))
    file = again / "journey.toml"
    data = json.dumps(str((again / "photos").resolve()))
    file.write_text(JOURNEY.replace('"photos"', data).replace("margin = 0.3", 'predictions = "wrong.npz"'))
    found = told(here("run", file, "--json", "--quiet"))
    assert [stage["status"] for stage in found["stages"]] == [0, 0, 3, 0]
    assert found["exit_status"] == 3
    # It is no less a failure for not being measured again.
    found = told(here("run", file, "--json", "--quiet"))
    assert (found["exit_status"], len(unchanged(found))) == (3, 3)


def test_the_worst_status_counts() -> None:
    assert [worst([]), worst([0, 0]), worst([0, 4]), worst([4, 2, 0]), worst([2, 3, 4])] == [0, 0, 4, 2, 3]


def test_killed_at_any_point_it_goes_on(place: Path, tmp_path: Path) -> None:
    """SIGKILL as each of these appears, one after the other; then left alone."""
    (tmp_path / "photos").symlink_to(place / "photos")
    shutil.copy(place / "journey.toml", tmp_path)
    work = tmp_path / "work"
    for landmark in ("run/checkpoint/last.pt", "bundles/.work/*", ".journey/export*"):
        if not list(work.glob(landmark)):
            assert started(tmp_path, lambda landmark=landmark: bool(list(work.glob(landmark)))) == -signal.SIGKILL
    assert started(tmp_path, lambda: False) == 0
    mine, theirs = load_run(work / "run"), load_run(place / "work" / "run")
    assert mine.weights_sha256 == theirs.weights_sha256
    bundles = [load_bundle(folder / "bundles" / "x86-generic") for folder in (work, place / "work")]
    # Of the manifests, only the times of training differ.
    hashes = [{**bundle.certificate.hashes, "manifest": ""} for bundle in bundles if bundle.certificate]
    assert hashes[0] == hashes[1]


def started(folder: Path, ended: Callable[[], bool]) -> int:
    """Run the journey until something is there; its exit status."""
    script = "import sys; from edgetl.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "run", str(folder / "journey.toml"), "--quiet"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        if ended():
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.01)
    # Its loading processes, which hold the run's folder, end a little later: then nobody has the pipe.
    process.communicate()
    return process.returncode


def test_a_run_is_printed_as_the_file_that_repeats_it(place: Path, tmp_path: Path, here: Here) -> None:
    done = here("run", "--print", place / "work" / "run")
    assert done.returncode == 0, done.stderr
    (tmp_path / "again.toml").write_text(done.stdout)
    found = told(here("run", tmp_path / "again.toml", "--json", "--quiet"))
    assert [stage["stage"] for stage in found["stages"]] == ["finetune"]
    one, other = load_run(place / "work" / "run"), load_run(tmp_path / "run-again" / "run")
    assert one.weights_sha256 == other.weights_sha256
    assert one.settings == other.settings
    as_json = json.loads(here("run", "--print", place / "work" / "run", "--json").stdout)
    assert as_json["toml"] == done.stdout


def test_a_bundle_is_printed_with_its_export(place: Path, tmp_path: Path, here: Here) -> None:
    bundle = place / "work" / "bundles" / "x86-generic"
    (tmp_path / "again.toml").write_text(here("run", "--print", bundle).stdout)
    journey = read_journey(tmp_path / "again.toml")
    assert [stage.title for stage in journey.stages] == ["finetune", "export x86-generic"]
    assert journey.stages[0].arguments["data"] == str((place / "photos").resolve())
    said = {name: journey.stages[1].arguments[name] for name in ("target", "precision", "margin")}
    assert said == {"target": ["x86-generic"], "precision": "fp32", "margin": 0.3}
    # Away from where it was made nothing tells where its data lie.
    moved = shutil.copytree(bundle, tmp_path / "élsewhere" / "x86-generic")
    text = here("run", "--print", moved).stdout
    assert text.isascii()
    assert '# The bundle does not say where this lies on this machine: correct it.\ndata = "photos"' in text


def test_an_adoption_is_repeated(place: Path, tmp_path: Path, here: Here) -> None:
    write_foreign(tmp_path / "my model.onnx", tmp_path / "prep.json")
    (tmp_path / "photos").symlink_to(place / "photos")
    (tmp_path / "journey.toml").write_text(
        'out = "work"\n[adopt]\nmodel = "my model.onnx"\ndata = "photos"\npreprocess = "prep.json"\n'
        'claim = "accuracy=100%"\nseed = 3\n'
    )
    told(here("run", tmp_path / "journey.toml", "--json", "--quiet"))
    there = tmp_path / "there"
    there.mkdir()
    (there / "again.toml").write_text(here("run", "--print", tmp_path / "work" / "run").stdout)
    told(here("run", there / "again.toml", "--json", "--quiet"))
    assert load_run(tmp_path / "work" / "run").digest == load_run(there / "run-again" / "run").digest


def test_what_no_command_line_says_is_not_printed(place: Path, tmp_path: Path, here: Here) -> None:
    record = json.loads((place / "work" / "run" / "run.json").read_text())
    shares = {"train": 0.3, "val": 0.1, "calibration": 0.08, "search": 0.02, "certify": 0.5}
    shutil.copytree(place / "work" / "run", tmp_path / "run")
    from edgetl.base.storage import write_sealed

    write_sealed(tmp_path / "run" / "run.json", {**record, "settings": {**record["settings"], "shares": shares}})
    done = here("run", "--print", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "train 0.3" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_keys_of_a_table_are_the_options_of_its_command(name: str) -> None:
    """As the command line itself parses them: an option that is added to a command is a key, by the same name."""
    parsed = typer.main.get_command(build()).commands[name]  # type: ignore[attr-defined]
    words = {
        max(parameter.opts, key=len).removeprefix("--").replace("_", "-"): parameter
        for parameter in parsed.params
        if parameter.name not in {*JOURNEYS, "help"}
    }
    keys = options_of(COMMANDS[name])
    assert set(keys) == set(words)
    assert {key for key, option in keys.items() if option.required} == {k for k, p in words.items() if p.required}
    assert {key for key, option in keys.items() if option.many} == {
        key for key, parameter in words.items() if parameter.multiple or parameter.nargs == -1
    }


def test_every_key_takes_what_its_option_takes(tmp_path: Path) -> None:
    """No option has a type that a file cannot say."""
    for name in COMMANDS:
        for key, option in keys_of(name).items():
            kinds = [kind for kind in (bool, int, float, str, Path) if option.takes(kind)]
            assert kinds, f"{name}.{key}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('out = "w"\n[finetune]\ndata = "photos"\nepochz = 3', "[finetune]: 'epochz': did you mean epochs?"),
        ('out = "w"\n[finetune]\ndata = "photos"\nepochs = "3"', '[finetune]: epochs is "3", not a whole number'),
        ('out = "w"\n[finetune]\ndata = "photos"\nseed = 2026-01-01', 'seed is "2026-01-01", not a whole number'),
        ('out = "w"\n[finetune]\ndata = "photos"\nfresh = true', "'fresh'"),
        ('out = "w"\n[finetune]\nepochs = 1', "[finetune]: data is missing"),
        ('out = "w"\n[finetune]\ndata = "a"\nbatch-size = 1\nbatch_size = 2', "batch-size stands there twice"),
        (
            'out = "w"\n[finetune]\ndata = "a"\nbatch-size = "many"',
            '[finetune]: batch-size is "many", not one of "auto"',
        ),
        ('out = "w"\n[finetune]\ndata = "photos"\nbackbone = "efficientnet_lite"', "did you mean efficientnet_lite"),
        ('out = "w"\n[finetune]\ndata = "none"', "none"),
        ('out = "w"\n[finetun]\ndata = "photos"', "'finetun': did you mean finetune?"),
        ('out = "w"\nfinetune = 3', "finetune is no table: write [finetune]"),
        ('out = 3\n[finetune]\ndata = "photos"', "out is no folder's name"),
        ('[finetune]\ndata = "photos"', "out is missing"),
        ('out = "w"\n[export]\ntarget = "jetson"', "neither [finetune] nor [adopt]"),
        ('out = "w"\n[finetune]\ndata = "photos"\n[verify]', "[verify] and no [export]"),
        ('out = "w"\n[finetune]\ndata = "photos"\n[export]\ntarget = ["jetsn"]', "[export]: unknown target 'jetsn'"),
        ('out = "w"\n[finetune]\ndata = "photos"\n[export]\ntarget = "jetson"\nprecision = "int4"', "[export]: "),
        ('out = "w"\n[finetune]\ndata = "photos"\n[export]\ntarget = "jetson"\nmargin = 2.0', "[export]: margin 2.0"),
        ('out = "w"\n[finetune]\ndata = "photos"\n[export]\ntarget = "jetson"\nmetric = "f1"', "unknown metric 'f1'"),
        ('out = "w"\n[finetune]\ndata = "photos"\n[export]\ntarget = "jetson"\nbatch = 0', "[export]: a batch of 0"),
        ('out = "w"\n[finetune]\ndata = "photos"\n[export]\ntarget = "jetson"\nsamples = "kcenter"', "[export]: "),
        ('out = "w"\n[finetune]\ndata = "photos"\n[export]\ntarget = "jetson"\n[verify.jetso]', "did you mean jetson?"),
        (
            'out = "w"\n[finetune]\ndata = "photos"\n[export]\ntarget = "jetson"\n[verify]\ndevice = "shop"',
            "[verify]: unknown device 'shop'",
        ),
        (
            'out = "w"\n[finetune]\ndata = "photos"\n[export]\ntarget = "jetson"\n[bench]\nuntil = "much"',
            "[bench]: 'much' is no share of p90",
        ),
        ('out = "w"\n[adopt]\nmodel = "m.onnx"\ndata = "photos"\nseed = -1', "[adopt]: seed is -1: give at least 0"),
        ("out = [", "is not valid TOML"),
        ("out = " + "[" * 5000, "is not valid TOML (it is nested too deep)"),
        ("#" * 300_000, "is larger than 256 KiB"),
        ("out = '\udcff'", "is not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(place: Path, tmp_path: Path, here: Here, text: str, named: str) -> None:
    (tmp_path / "photos").symlink_to(place / "photos")
    (tmp_path / "bad.toml").write_bytes(text.encode(errors="surrogateescape"))
    done = here("run", tmp_path / "bad.toml")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    *before, error = done.stderr.splitlines()
    # What only the first stage can tell it tells as that command does.
    assert before in ([], ["1/1 finetune"])
    assert error.startswith("error: ")
    assert named in error
    assert {file.name for file in tmp_path.iterdir()} == {"photos", "bad.toml"}


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(EdgetlError, match="is no file"):
            read_journey(source)


def test_a_target_may_have_a_table_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "journey.toml"
    file.write_text(
        'out = "w"\n[finetune]\ndata = "p"\n[export]\ntarget = ["jetson", "intel-cpu", "rpi5"]\nmargin = 0.02\n'
        '[export.intel-cpu]\nprecision = "fp16"\n[verify.jetson]\ndevice = "mine"\n[bench]\nduration = 2.0\n'
        '[bench.jetson]\ndevice = ["mine", "yours"]\n[report]\nout = "page.html"\n'
    )
    journey = read_journey(file)
    titles = ["finetune", "export jetson, rpi5", "export intel-cpu", "verify jetson"]
    titles += ["bench jetson", "bench rpi5", "bench intel-cpu", "report"]
    assert [stage.title for stage in journey.stages] == titles
    stages = {stage.title: stage.arguments for stage in journey.stages}
    assert stages["export intel-cpu"]["precision"] == "fp16"
    assert stages["export intel-cpu"]["margin"] == stages["export jetson, rpi5"]["margin"] == 0.02
    assert stages["bench jetson"]["device"] == ["mine", "yours"]
    assert "device" not in stages["bench rpi5"]
    assert stages["report"]["out"] == Path("page.html")


def test_pairs_may_be_a_table() -> None:
    """``--set rank=16`` is ``set = {rank = 16}``, where a command takes such pairs."""
    from typing import Annotated

    import typer

    from edgetl.cli.journey.options import read_options

    def command(values: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE")] = None) -> None: ...

    command.__annotations__["values"] = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE")]
    options = options_of(command)
    assert read_options(options, {"set": {"rank": 16, "bias": True}}, "it") == {"values": ["rank=16", "bias=true"]}
    assert read_options(options, {"set": ["rank=16"]}, "it") == {"values": ["rank=16"]}
