"""The user's devices: ``devices.json`` in a folder of their own.

The folder is ``$EDGETL_HOME``, or ``$XDG_CONFIG_HOME/edgetl``, or ``~/.config/edgetl``. Emulated machines live
below it in ``devices/NAME/rootfs``. ``local`` is always there and stands in no file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgetl.devices.base import Device
from edgetl.devices.connection import parse_url
from edgetl.devices.emulated import EmulatedDevice
from edgetl.devices.local import LocalDevice
from edgetl.devices.rootfs import CPUS, check_tools, create_rootfs
from edgetl.devices.ssh import SshDevice
from edgetl.errors import DeviceError, UnknownNameError
from edgetl.progress import Progress, silent
from edgetl.storage import read_json, write_json

SCHEMA = 1
LISTING = "edgetl devices"
#: what the user may call an architecture → the kernel's name for it
ARCHITECTURES: Mapping[str, str] = {"arm64": "aarch64", "aarch64": "aarch64"}
EXTRAS = ("onnxruntime", "openvino", "ai_edge_litert")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def home() -> Path:
    """The user's folder of edgetl; it need not exist."""
    given = os.environ.get("EDGETL_HOME")
    if given:
        return Path(given).expanduser().resolve()
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser().resolve() / "edgetl"


def list_devices() -> tuple[Device, ...]:
    """Every device, ``local`` first, the others by name.

    Raises:
        DeviceError: ``devices.json`` is damaged.
    """
    return (LocalDevice(), *(_device(name, entry) for name, entry in sorted(_entries().items())))


def find_device(name: str) -> Device:
    """A device by its name.

    Raises:
        UnknownNameError: there is none of this name.
        DeviceError: ``devices.json`` is damaged.
    """
    devices = {device.name: device for device in list_devices()}
    if name not in devices:
        raise UnknownNameError("device", name, devices, listing=LISTING)
    return devices[name]


def add_device(name: str, url: str) -> Device:
    """Remember a device behind SSH. It is not contacted; :meth:`Device.probe` does that.

    Args:
        name: letters, digits, ``.``, ``_`` and ``-``.
        url: see :func:`edgetl.devices.connection.parse_url`.

    Raises:
        DeviceError: the name is taken or malformed, or the URL is malformed.
    """
    address = parse_url(url)
    with _changing() as entries:
        _check_new(name, entries)
        entries[name] = {"kind": "ssh", "url": address.url}
    return find_device(name)


def create_device(
    name: str,
    arch: str = "arm64",
    *,
    cpu: str = "cortex-a76",
    extras: Sequence[str] = (),
    progress: Progress = silent,
) -> Device:
    """Make an emulated device: install Debian's Python for ``arch`` and the runtimes' wheels in a folder of its own.

    Args:
        name: letters, digits, ``.``, ``_`` and ``-``.
        arch: key of :data:`ARCHITECTURES`.
        cpu: key of :data:`edgetl.devices.rootfs.CPUS`.
        extras: runtimes to install besides ONNX Runtime, of :data:`EXTRAS`.
        progress: told of each step.

    Raises:
        UnknownNameError: architecture, CPU or runtime is unknown.
        DeviceError: the name is taken or malformed, a tool is missing (with the package to install), or a
            package cannot be fetched. Nothing is left behind.
    """
    wanted = [("architecture", arch, ARCHITECTURES), ("CPU", cpu, CPUS), *(("runtime", e, EXTRAS) for e in extras)]
    for kind, given, known in wanted:
        if given not in known:
            raise UnknownNameError(kind, given, known)
    _check_new(name, _entries())
    check_tools()
    # Whatever lies here belongs to no device: an attempt that was killed.
    shutil.rmtree(_folder(name), ignore_errors=True)
    try:
        runtimes = dict.fromkeys(("onnxruntime", *extras))
        create_rootfs(_rootfs(name), cpu=cpu, runtimes=tuple(runtimes), progress=progress)
        with _changing() as entries:
            _check_new(name, entries)
            entries[name] = {"kind": "emulated", "arch": ARCHITECTURES[arch]}
    except BaseException:
        shutil.rmtree(_folder(name), ignore_errors=True)
        raise
    return find_device(name)


def remove_device(name: str) -> None:
    """Forget a device; an emulated one is deleted from disk.

    Raises:
        UnknownNameError: there is none of this name.
        DeviceError: it is ``local``.
    """
    if name == LocalDevice().name:
        raise DeviceError(f"{name} is this machine and cannot be removed")
    with _changing() as entries:
        if name not in entries:
            raise UnknownNameError("device", name, ["local", *entries], listing=LISTING)
        del entries[name]
    if _folder(name).is_dir():
        shutil.rmtree(_folder(name))


def _folder(name: str) -> Path:
    return home() / "devices" / name


def _rootfs(name: str) -> Path:
    return _folder(name) / "rootfs"


def _file() -> Path:
    return home() / "devices.json"


def _entries() -> dict[str, dict[str, str]]:
    if not _file().is_file():
        return {}
    record = read_json(_file(), DeviceError)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or not isinstance(record.get("devices"), dict):
        raise DeviceError(f"{_file()} is not a list of devices that this edgetl reads", "correct it or delete it")
    return dict(record["devices"])


@contextlib.contextmanager
def _changing() -> Iterator[dict[str, dict[str, str]]]:
    """The entries, to be changed in place; no other edgetl changes them meanwhile."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        lock = (home() / ".devices.lock").open("w")
    except OSError as error:
        remedy = "set EDGETL_HOME to a writable folder"
        raise DeviceError(f"cannot write {home()} ({error.strerror})", remedy) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = _entries()
        yield entries
        write_json(_file(), {"schema": SCHEMA, "devices": entries})


def _check_new(name: str, entries: Mapping[str, object]) -> None:
    if not _NAME.fullmatch(name):
        raise DeviceError(f"'{name}' cannot name a device", "use letters, digits, '.', '_' and '-'")
    if name == LocalDevice().name or name in entries:
        raise DeviceError(
            f"there is a device '{name}' already", f"choose another name, or first: edgetl devices remove {name}"
        )


def _device(name: str, entry: Mapping[str, str]) -> Device:
    if entry.get("kind") == "emulated":
        return EmulatedDevice(name, _rootfs(name))
    if entry.get("kind") == "ssh" and "url" in entry:
        return SshDevice(name, parse_url(entry["url"]))
    raise DeviceError(f"{_file()} holds a device '{name}' of an unknown kind", f"edgetl devices remove {name}")
