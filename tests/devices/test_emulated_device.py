"""An emulated Arm machine: a real aarch64 Python and ONNX Runtime under qemu."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl import runtime
from edgetl.base.errors import DeviceError, UnknownNameError
from edgetl.base.storage import write_sealed
from edgetl.core.bundle import Bundle
from edgetl.devices import Device, bench, create_device, find_device, list_devices, predict, selftest
from edgetl.devices.emulated import EmulatedDevice
from edgetl.devices.rootfs import MARKER, check_tools, read_marker


def test_float_logits_agree_with_this_machine(emulated: Device, bundle: Bundle, jpegs: list[Path]) -> None:
    found = predict(emulated, bundle, jpegs, role="float", threads=1)["logits"]
    here = runtime.predict(bundle, jpegs, role="float", threads=1)["logits"]
    assert float(np.abs(found - here).max()) < 1e-4
    assert np.ptp(here, axis=0).min() > 0.01


def test_int8_logits_come_from_the_arm_kernels(emulated: Device, bundle: Bundle, jpegs: list[Path]) -> None:
    found = predict(emulated, bundle, jpegs, threads=1)["logits"]
    here = runtime.predict(bundle, jpegs, threads=1)["logits"]
    assert float(np.abs(found - here).max()) < 0.05 * float(np.ptp(here))


def test_texts_are_read_there_too(emulated: Device, texts: tuple[Bundle, list[Path]]) -> None:
    bundle, files = texts
    found = predict(emulated, bundle, files, threads=1)["logits"]
    np.testing.assert_allclose(found, runtime.predict(bundle, files, threads=1)["logits"], atol=1e-5)
    assert emulated.probe().packages["tokenizers"]


def test_a_machine_made_without_what_texts_need_says_how_to_make_one(
    emulated: Device, texts: tuple[Bundle, list[Path]], tmp_path: Path
) -> None:
    assert isinstance(emulated, EmulatedDevice)
    marker = dict(read_marker(emulated.root))
    del marker["digest"]
    write_sealed(tmp_path / MARKER, {**marker, "packages": {**marker["packages"], "tokenizers": None}})
    bundle, files = texts
    with pytest.raises(DeviceError, match="bare lacks tokenizers") as caught:
        predict(EmulatedDevice("bare", tmp_path), bundle, files)
    assert "edgetl devices create bare --with-tokenizers" in str(caught.value.remedy)


def test_it_is_an_arm_machine_and_says_simulated(emulated: Device, bundle: Bundle) -> None:
    probe = emulated.probe()
    assert probe.reachable, probe.reason
    assert emulated.executed == "simulated"
    assert probe.machine.arch == emulated.arch == "aarch64"
    assert probe.machine.isa_features == ("asimdhp", "asimddp")
    foreign = (probe.machine.governor, probe.machine.kernel, probe.machine.sensors, probe.machine.load_1min)
    assert foreign == (None,) * 4, "those are this machine's"
    assert "emulated" in (probe.machine.cpu_model or "")
    assert probe.packages["onnxruntime"]
    assert selftest(emulated, bundle, threads=1).passed


def test_its_times_are_refused(emulated: Device, bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match="emulated time is not device time"):
        bench(emulated, bundle)


def test_an_unfinished_or_altered_root_is_refused(emulated: Device, tmp_path: Path, bundle: Bundle) -> None:
    from edgetl.devices.emulated import EmulatedDevice

    root = tmp_path / "devices" / "half" / "rootfs"
    root.mkdir(parents=True)
    for entry in Path(emulated.where).iterdir():
        if entry.name != MARKER:
            (root / entry.name).symlink_to(entry)
    with pytest.raises(DeviceError, match=r"no finished emulated machine.*edgetl devices create half"):
        selftest(EmulatedDevice("half", root), bundle)
    marker = (Path(emulated.where) / MARKER).read_text()
    (root / MARKER).write_text(marker.replace("cortex-a76", "cortex-a72"))
    assert not EmulatedDevice("half", root).probe().reachable


def test_the_marker_lists_what_was_installed(emulated: Device) -> None:
    marker = read_marker(Path(emulated.where))
    assert set(marker["packages"]) == {"numpy", "PIL", "onnxruntime", "tokenizers"}
    assert marker["packages"]["numpy"] == np.__version__
    assert marker["arch"] == "aarch64"


def test_missing_tools_are_named_with_their_package(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"needs apt, dpkg, qemu-user-static.*apt-get install"):
        create_device("pi")
    assert [device.name for device in list_devices()] == ["local"]
    assert not (own_home / "devices").exists()


def test_without_arm_packages_nothing_is_left_behind(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulated: Device
) -> None:
    empty = tmp_path / "apt.conf"
    empty.write_text(f'Dir::Etc::sourcelist "{tmp_path}/none";\nDir::Etc::sourceparts "{tmp_path}/none.d";\n')
    monkeypatch.setenv("APT_CONFIG", str(empty))
    with pytest.raises(DeviceError, match="apt offers no arm64 packages of python3"):
        create_device("pi")
    assert not (own_home / "devices.toml").exists()
    assert not (own_home / "devices/pi").exists()


def test_a_root_file_system_of_ones_own(
    own_home: Path, tmp_path: Path, emulated: Device, bundle: Bundle, edgetl: Callable[..., Any]
) -> None:
    """As a container with Python has it: packed, without wheels, with an absolute link and kernel folders."""
    here = Path(emulated.where)
    packed = tmp_path / "rootfs.tar"
    left_out = [f"--exclude=./{name}" for name in ("usr/local/lib/*", "proc", "sys", MARKER)]
    subprocess.run(["tar", "-C", str(here), *left_out, "-cf", str(packed), "."], check=True)
    link = tmp_path / "added" / "usr/bin/python3.99"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"/usr/bin/{read_marker(here)['python']}")
    subprocess.run(["tar", "-C", str(tmp_path / "added"), "-rf", str(packed), "./usr/bin/python3.99"], check=True)
    done = edgetl("devices", "create", "mine", "--from", packed, "--quiet", EDGETL_HOME=str(own_home))
    assert done.returncode == 0, done.stderr
    root = own_home / "devices/mine/rootfs"
    assert (root / "usr/bin/python3.99").readlink() == Path(read_marker(here)["python"])
    assert read_marker(root)["packages"].items() <= read_marker(here)["packages"].items()
    assert selftest(find_device("mine"), bundle, threads=1).passed


def test_what_is_no_root_file_system_leaves_nothing(own_home: Path, tmp_path: Path) -> None:
    check_tools()
    (tmp_path / "text").write_text("no archive")
    for folder, program in (("foreign", sys.executable), ("empty", None)):
        (tmp_path / folder / "usr/bin").mkdir(parents=True)
        if program:
            shutil.copy(Path(program).resolve(), tmp_path / folder / "usr/bin/python3.11")
    with pytest.raises(DeviceError, match="text is no root file system: give a folder or"):
        create_device("mine", source=tmp_path / "text")
    with pytest.raises(DeviceError, match="has no Python 3"):
        create_device("mine", source=tmp_path / "empty")
    if platform.machine() != "aarch64":
        with pytest.raises(DeviceError, match=r"python3\.11 of this root file system is not for arm64"):
            create_device("mine", source=tmp_path / "foreign")
    assert not (own_home / "devices/mine").exists()
    assert [device.name for device in list_devices()] == ["local"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "armm64"}, "unknown architecture 'armm64': did you mean arm64"),
        ({"cpu": "cortex-a75"}, "unknown CPU 'cortex-a75': did you mean cortex-a7"),
        ({"extras": ["openvno"]}, "unknown extra 'openvno': did you mean openvino"),
    ],
)
def test_unknown_names_offer_the_near_ones(own_home: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        create_device("pi", **options)
