"""A bundle is untrusted input: what its manifest may name, and what is never run. Here, and on the device itself."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import edgetl
from edgetl.base.errors import BundleError, DeviceError
from edgetl.base.storage import sha256_bytes, sha256_file
from edgetl.core.bundle import CERTIFICATE, MANIFEST, Bundle, load_bundle
from edgetl.devices import Device, add_device, find_device, selftest
from edgetl.devices.connection import disconnect
from edgetl.devices.payload import receiver_program
from tests.devices.forged import entry, forged, reseal
from tests.devices.real_sshd import Sshd

Cli = Callable[..., Any]
NAMES = (
    *("../labels.json", "model/../../labels.json", "/etc/hostname", "model//model.onnx", "./labels.json", "."),
    *("model/./model.onnx", "model\\model.onnx", "C:model.onnx", "", "model/", "..", "a\x1b[2Jb", "a\nb", "a\u202eb"),
    *("x" * 300, "/".join(["x" * 200] * 8), "*/_ORT_MEM_ADDR_/*"),
)
#: A name as in the report of this fault: through a link of the bundle's to whatever its reader may write.
THROUGH, LINK = "x/../../../../../.bashrc", "p/q/r/s/t/u"


def listed(record: dict[str, Any], name: str, where: str) -> None:
    """Put a name in a place of a manifest, with a hash that is somebody's."""
    record["files"][name] = dict(record["files"]["labels.json"])
    if where in ("exported", "source"):
        record[where] = name
    elif where != "files":
        record["artifacts"][where]["file"] = name


@pytest.mark.parametrize("where", ["files", "deployed", "float", "exported", "source"])
def test_names_that_lead_elsewhere_are_refused(bundle: Bundle, tmp_path: Path, where: str) -> None:
    folder = forged(bundle, tmp_path / "forged")
    honest = (folder / MANIFEST).read_bytes()
    for name in (*NAMES, THROUGH):
        # "" says that there is no such file.
        if not name and where in ("exported", "source"):
            continue
        (folder / MANIFEST).write_bytes(honest)
        reseal(folder, lambda record, name=name: listed(record, name, where))  # type: ignore[misc]
        with pytest.raises(BundleError) as caught:
            load_bundle(folder)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["labels.json", "model/model.onnx", "model", MANIFEST, CERTIFICATE, "predictions.npz"])
def test_links_are_refused_wherever_they_lead(host_bundle: Bundle, tmp_path: Path, name: str) -> None:
    folder = forged(host_bundle, tmp_path / "forged")
    place, elsewhere = folder / name, tmp_path / "elsewhere"
    if place.exists():
        place.rename(elsewhere)
    else:
        elsewhere.write_text("{}")
    place.symlink_to(elsewhere)
    with pytest.raises(BundleError, match="leads through a link"):
        load_bundle(folder)


def test_a_link_to_the_bundle_itself_is_a_name_like_any_other(host_bundle: Bundle, tmp_path: Path) -> None:
    """Programs open ``current``."""
    (tmp_path / "current").symlink_to(host_bundle.path)
    assert load_bundle(tmp_path / "current").digest == host_bundle.digest


def overwriting(bundle: Bundle, folder: Path) -> Path:
    """A bundle that wants to overwrite the start file of whoever's shell takes it."""
    forged(bundle, folder)
    (folder / LINK).mkdir(parents=True)
    (folder / "x").symlink_to(LINK)
    (folder / THROUGH).parent.resolve()
    target = folder / ".bashrc"
    target.write_text("echo attacked\n")

    def change(record: dict[str, Any]) -> None:
        record["files"][THROUGH] = entry(target)

    reseal(folder, change)
    return folder


def test_a_home_is_not_overwritten_by_deploying(
    sshd: Sshd, own_home: Path, host_bundle: Bundle, tmp_path: Path, edgetl: Cli
) -> None:
    add_device("board", sshd.url(sshd.client("good")))
    bashrc = sshd.home / ".bashrc"
    bashrc.write_text("own\n")
    folder = overwriting(host_bundle, tmp_path / "forged")
    done = edgetl("deploy", folder, "--device", "board", EDGETL_HOME=str(own_home))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "leads out of the folder" in done.stderr
    # Nor by what deploying sends, should the host not have looked.
    with pytest.raises(BundleError, match="leads out of the folder"):
        find_device("board").call(["selftest"], bundle=folder)
    disconnect()
    assert bashrc.read_text() == "own\n"


def test_the_emulated_machine_refuses_it_too(emulated: Device, bundle: Bundle, tmp_path: Path) -> None:
    folder = overwriting(bundle, tmp_path / "forged")
    with pytest.raises(DeviceError, match="leads out of the folder"):
        emulated.call(["selftest"], bundle=folder)


DATA = b"content"
NAMED = sha256_bytes(DATA)
FOLDER = f"bundles/{'0' * 64}"


def receive(cache: Path, verb: str, stream: bytes) -> subprocess.CompletedProcess[bytes]:
    """What a device does that has nothing but Python."""
    for name in ("files", "bundles", "code"):
        (cache / name).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-I", "-S", "-c", receiver_program(), str(cache), verb]
    return subprocess.run(command, input=stream, capture_output=True, check=False, cwd=cache)


def archive(wanted: Any, **more: Any) -> bytes:
    """A stream as a host sends it that means harm: one content, then what is to be made of it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, data in ((more.get("name", NAMED), DATA), ("folder", json.dumps(wanted).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if name != "folder" and "link" in more:
                member.type, member.linkname, member.size = more["link"], "/etc/passwd", 0
            made.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_the_receiver_takes_what_is_well_named(tmp_path: Path) -> None:
    wanted = {"path": FOLDER, "files": {"model/model.onnx": NAMED}}
    assert receive(tmp_path, "look", json.dumps(wanted).encode()).stdout.decode().split() == [NAMED]
    done = receive(tmp_path, "take", archive(wanted))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / FOLDER / "model/model.onnx").read_bytes() == DATA
    assert receive(tmp_path, "look", json.dumps(wanted).encode()).stdout.decode().split() == ["whole"]


@pytest.mark.parametrize(
    "wanted",
    [
        *({"path": FOLDER, "files": {name: NAMED}} for name in ("../../../a", "/tmp/a", "a/../b", "a\\b", "", "\n")),
        *({"path": FOLDER, "files": {"a": content}} for content in ("../../secret", "/etc/passwd", 3, NAMED + ".")),
        *(
            {"path": path, "files": {"a": NAMED}}
            for path in ("..", "../evil", "files", "bundles/../../x", "/", 3, None)
        ),
        *([], 3, None, {"path": FOLDER, "files": [NAMED]}),
    ],
    ids=repr,
)
def test_the_receiver_on_the_device_judges_names_again(tmp_path: Path, wanted: Any) -> None:
    (tmp_path / "secret").write_text("mine")
    cache = tmp_path / "home" / "cache"
    before = files_of(tmp_path)
    for verb, stream in (("look", json.dumps(wanted).encode()), ("take", archive(wanted))):
        done = receive(cache, verb, stream)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), (verb, done)
        assert b"refused" in done.stderr
        assert b"mine" not in done.stdout + done.stderr
    assert files_of(tmp_path) - before <= {f"home/cache/files/{NAMED}"}
    assert (tmp_path / "secret").read_text() == "mine"


@pytest.mark.parametrize(
    "more",
    [
        *({"name": name} for name in ("../../evil", "/tmp/evil", ".partial.1", "x", NAMED + "/x", NAMED.upper())),
        *({"link": kind} for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)),
    ],
    ids=repr,
)
def test_the_receiver_takes_contents_alone(tmp_path: Path, more: Mapping[str, Any]) -> None:
    cache = tmp_path / "home" / "cache"
    done = receive(cache, "take", archive({"path": FOLDER, "files": {"a": NAMED}}, **more))
    assert done.returncode == 1
    assert b"what arrives is refused" in done.stderr
    assert files_of(tmp_path) == set()


def test_a_folder_is_not_put_together_through_a_link(tmp_path: Path) -> None:
    """What a cache holds already is not believed either."""
    wanted = {"path": FOLDER, "files": {"a/b": NAMED}}
    assert receive(tmp_path, "take", archive(wanted)).returncode == 0
    place = tmp_path / FOLDER / "a"
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    done = receive(tmp_path, "look", json.dumps(wanted).encode())
    assert done.returncode == 0
    assert done.stdout.split() == []
    assert not (tmp_path / FOLDER).exists()
    assert (tmp_path / "elsewhere/b").read_bytes() == DATA


#: A CUDA driver that says yes to everything, and a TensorRT that builds nothing, and tells what it is given.
DRIVER = "".join(
    f"int {name}() {{ return 0; }}\n"
    for name in (
        *("cuInit", "cuDeviceGet", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease"),
        *("cuCtxSetCurrent", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2", "cuStreamCreate", "cuStreamDestroy_v2"),
        *("cuMemAlloc_v2", "cuMemFree_v2", "cuDevicePrimaryCtxRelease_v2", "cuMemAllocHost_v2", "cuMemFreeHost"),
        "cuDeviceGetName",
    )
)
DRIVER += "int cuDeviceGetCount(int *count) { *count = 1; return 0; }\n"
TENSORRT = """
import os, pathlib
__version__ = "10.3.0"
class Logger:
    ERROR = WARNING = 0
    def __init__(self, level): pass
class Runtime:
    def __init__(self, logger): pass
    def deserialize_cuda_engine(self, data):
        if data == b"planted": pathlib.Path(os.environ["MARK"]).touch()
        return None
class Builder:
    def __init__(self, logger): raise SystemExit("edgetl's own script")
"""


def test_nothing_that_lies_in_a_bundle_is_run(bundle: Bundle, jpegs: list[Path], tmp_path: Path) -> None:
    """Neither a script beside the model, nor an engine that somebody else built, under the very name of this one."""
    if subprocess.run(["gcc", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("gcc makes the driver that says yes")
    fake, mark = tmp_path / "fake", tmp_path / "mark"
    fake.mkdir()
    (fake / "tensorrt.py").write_text(TENSORRT)
    (fake / "driver.c").write_text(DRIVER)
    subprocess.run(["gcc", "-shared", "-o", fake / "libcuda.so.1", fake / "driver.c"], check=True)
    folder = forged(bundle, tmp_path / "forged")
    script = f"#!/bin/sh\n''':'\ntouch {mark}\nexit\n'''\nimport pathlib; pathlib.Path({str(mark)!r}).touch()\n"
    for name in ("build_engine.py", "build_engine.sh", "sitecustomize.py", "argparse.py"):
        (folder / "model" / name).write_text(script)
        (folder / name).write_text(script)
    here = os.uname()
    own = sha256_file(folder / "model/model.onnx")[:16]
    engine = folder / f"model/model-trt10.3.0-sm0.0-{here.sysname.lower()}-{here.machine}-b1-{own}.engine"
    for name in (engine, engine.with_name(engine.name.replace("sm0.0", "sm00"))):
        name.write_bytes(b"planted")
        name.with_name(name.name + ".sha256").write_text(sha256_bytes(b"planted"))

    def change(record: dict[str, Any]) -> None:
        record["artifacts"]["deployed"]["backend"] = "tensorrt"
        for file in folder.rglob("*"):
            if file.is_file() and file.name != MANIFEST:
                record["files"][file.relative_to(folder).as_posix()] = entry(file)

    reseal(folder, change)
    assert load_bundle(folder)
    search = os.pathsep.join([str(Path(edgetl.__file__).parents[1]), str(fake)])
    places = {"LD_LIBRARY_PATH": str(fake), "MARK": str(mark), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "edgetl.runtime", "selftest", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=fake,
        env={**os.environ, **places, "PYTHONPATH": search},
    )
    assert "cannot be built (edgetl's own script)" in done.stderr, done.stderr
    assert not mark.exists()


def test_the_selftest_of_an_honest_bundle_still_passes(host_bundle: Bundle, tmp_path: Path) -> None:
    assert selftest(find_device("local"), load_bundle(forged(host_bundle, tmp_path / "copy"))).passed
