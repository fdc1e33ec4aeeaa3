"""The user's devices: ``devices.toml`` in a folder of their own, which may be edited by hand.

    schema = 2
    [devices.board]
    kind = "ssh"
    url = "ssh://user@board"
    require_signature = "64 hexadecimal digits"     a public key: only bundles that it signed go there
    [devices.board.probed]      what the last probe found: arch, cores, ISA features, memory, sensors, versions, …

The folder is ``$EDGETL_HOME``, or ``$XDG_CONFIG_HOME/edgetl``, or ``~/.config/edgetl``. Emulated machines live
below it in ``devices/NAME/rootfs``. ``local`` is always there and stands in no file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgetl.base.errors import DeviceError, UnknownNameError
from edgetl.base.lock import in_turn
from edgetl.base.progress import Progress, silent
from edgetl.base.schema import to_json
from edgetl.base.storage import parse_toml, read_json, write_bytes
from edgetl.core.signature import read_public_key
from edgetl.devices.arm_kernel import CPUS
from edgetl.devices.base import Device, DeviceProbe
from edgetl.devices.connection import parse_url
from edgetl.devices.emulated import EmulatedDevice
from edgetl.devices.local import LocalDevice
from edgetl.devices.rootfs import check_tools, create_rootfs
from edgetl.devices.ssh import SshDevice

SCHEMA = 2
LISTING = "edgetl devices"
#: what the user may call an architecture → the kernel's name for it
ARCHITECTURES: Mapping[str, str] = {"arm64": "aarch64", "aarch64": "aarch64"}
EXTRAS = ("onnxruntime", "openvino", "ai_edge_litert", "tokenizers")
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
        DeviceError: ``devices.toml`` is damaged.
    """
    return (LocalDevice(), *(_device(name, entry) for name, entry in sorted(_entries().items())))


def find_device(name: str) -> Device:
    """A device by its name.

    Raises:
        UnknownNameError: there is none of this name.
        DeviceError: ``devices.toml`` is damaged.
    """
    devices = {device.name: device for device in list_devices()}
    if name not in devices:
        raise UnknownNameError("device", name, devices, listing=LISTING)
    return devices[name]


def add_device(name: str, url: str, *, require_signature: str | Path | None = None) -> Device:
    """Remember a device behind SSH. It is not contacted; :func:`probe_device` does that.

    Args:
        name: letters, digits, ``.``, ``_`` and ``-``.
        url: see :func:`edgetl.devices.connection.parse_url`.
        require_signature: public key that must have signed every bundle that goes there: a file, or 64 hexadecimal
            digits.

    Raises:
        DeviceError: the name is taken or malformed, or the URL is malformed.
        BundleError: the public key is none.
    """
    address = parse_url(url)
    required = {} if require_signature is None else {"require_signature": read_public_key(require_signature)}
    with _changing() as entries:
        _check_new(name, entries)
        entries[name] = {"kind": "ssh", "url": address.url, **required}
    return find_device(name)


def probe_device(name: str) -> DeviceProbe:
    """Ask a device what it is, and keep that with its description if it answers.

    Raises:
        UnknownNameError: there is none of this name.
        DeviceError: ``devices.toml`` is damaged.
    """
    found = find_device(name).probe()
    if found.python and name in _entries():
        passing = ("clock_mhz", "gpu_clock_mhz", "temperatures_c", "power_w", "load_1min")
        lasting = {key: value for key, value in to_json(found.machine).items() if key not in passing}
        kept = _without_none({**lasting, "python": found.python, "packages": dict(found.packages)})
        with _changing() as entries:
            if name in entries:
                entries[name] = {**entries[name], "probed": kept}
    return found


def description(name: str) -> Mapping[str, Any]:
    """What the last probe of a device found; empty before the first."""
    probed = _entries().get(name, {}).get("probed", {})
    return probed if isinstance(probed, dict) else {}


def create_device(
    name: str,
    arch: str = "arm64",
    *,
    cpu: str = "cortex-a76",
    extras: Sequence[str] = (),
    source: str | Path | None = None,
    progress: Progress = silent,
) -> Device:
    """Make an emulated device: install Debian's Python for ``arch`` and wheels in a folder of its own.

    Args:
        name: letters, digits, ``.``, ``_`` and ``-``.
        arch: key of :data:`ARCHITECTURES`.
        cpu: key of :data:`edgetl.devices.arm_kernel.CPUS`.
        extras: modules to install besides numpy, Pillow and ONNX Runtime, of :data:`EXTRAS`.
        source: a root file system to start from (a folder, or a tar file as ``docker export`` writes it) instead.
        progress: told of each step.

    Raises:
        UnknownNameError: architecture, CPU or extra is unknown.
        DeviceError: the name is taken or malformed, a tool is missing (with the package to install), or a
            package cannot be fetched. Nothing is left behind.
    """
    wanted = [("architecture", arch, ARCHITECTURES), ("CPU", cpu, CPUS), *(("extra", e, EXTRAS) for e in extras)]
    for kind, asked, known in wanted:
        if asked not in known:
            raise UnknownNameError(kind, asked, known)
    _check_new(name, _entries())
    check_tools()
    # Whatever lies here belongs to no device: an attempt that was killed.
    shutil.rmtree(_folder(name), ignore_errors=True)
    try:
        modules = dict.fromkeys(("onnxruntime", *extras))
        given = None if source is None else Path(source)
        create_rootfs(_rootfs(name), cpu=cpu, modules=tuple(modules), source=given, progress=progress)
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
    # Whoever edits the file by hand may write any name there: what is no name has no folder.
    if not _NAME.fullmatch(name):
        return
    if _folder(name).is_symlink():
        _folder(name).unlink()
    elif _folder(name).is_dir():
        shutil.rmtree(_folder(name))


def _folder(name: str) -> Path:
    return home() / "devices" / name


def _rootfs(name: str) -> Path:
    return _folder(name) / "rootfs"


def _file() -> Path:
    return home() / "devices.toml"


def _older_file() -> Path:
    return home() / "devices.json"


def _entries() -> dict[str, dict[str, Any]]:
    file, schema = (_file(), SCHEMA) if _file().is_file() else (_older_file(), 1)
    if not file.is_file():
        return {}
    try:
        record = parse_toml(file.read_text(encoding="utf-8")) if schema == SCHEMA else read_json(file, DeviceError)
    except (ValueError, OSError) as error:
        raise DeviceError(f"{file} is not whole TOML ({error})", "correct it or delete it") from error
    devices = record.get("devices", {}) if isinstance(record, dict) and record.get("schema") == schema else None
    if not isinstance(devices, dict) or not all(isinstance(entry, dict) for entry in devices.values()):
        raise DeviceError(f"{file} is not a list of devices that this edgetl reads", "correct it or delete it")
    return dict(devices)


@contextlib.contextmanager
def _changing() -> Iterator[dict[str, dict[str, Any]]]:
    """The entries, to be changed in place; no other edgetl changes them meanwhile."""
    with contextlib.ExitStack() as stack:
        try:
            home().mkdir(parents=True, exist_ok=True)
            stack.enter_context(in_turn(home() / ".devices.lock"))
        except OSError as error:
            remedy = "set EDGETL_HOME to a writable folder"
            raise DeviceError(f"cannot write {home()} ({error.strerror})", remedy) from error
        entries = _entries()
        # Entries are replaced, never changed in place. Those of the older file are all new to this one.
        before = dict(entries) if _file().is_file() else {}
        yield entries
        write_bytes(_file(), _edited(before, entries).encode())
        _older_file().unlink(missing_ok=True)


def _edited(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The file's text with only what changed written anew: comments of whoever edits it by hand stay."""
    import tomlkit

    document = tomlkit.parse(_file().read_text(encoding="utf-8") if _file().is_file() else f"schema = {SCHEMA}\n")
    if "devices" not in document:
        document["devices"] = tomlkit.table(is_super_table=True)
    devices: Any = document["devices"]
    for name in before.keys() - after.keys():
        del devices[name]
    for name, entry in sorted(after.items()):
        if before.get(name) != entry:
            devices[name] = entry
    return tomlkit.dumps(document)


def _without_none(value: Any) -> Any:
    """TOML has no null: what is not known is left out."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _check_new(name: str, entries: Mapping[str, object]) -> None:
    if not _NAME.fullmatch(name):
        raise DeviceError(f"'{name}' cannot name a device", "use letters, digits, '.', '_' and '-'")
    if name == LocalDevice().name or name in entries:
        raise DeviceError(
            f"there is a device '{name}' already", f"choose another name, or first: edgetl devices remove {name}"
        )


def _device(name: str, entry: Mapping[str, Any]) -> Device:
    given, kind = entry.get("require_signature"), entry.get("kind")
    # What is written there asks for a signature, whatever it is: it is not left out because it cannot be read.
    key = "" if given is None else read_public_key(str(given))
    if not _NAME.fullmatch(name):
        raise DeviceError(f"{_file()} holds a device {name!a:.100}, which is no name of one", "correct the file")
    if kind == "emulated":
        return EmulatedDevice(name, _rootfs(name), key)
    if kind == "ssh" and isinstance(entry.get("url"), str):
        probed = entry.get("probed")
        arch = str(probed.get("arch", "")) if isinstance(probed, dict) else ""
        return SshDevice(name, parse_url(entry["url"]), arch, key)
    raise DeviceError(f"{_file()} holds a device '{name}' of an unknown kind", f"edgetl devices remove {name}")
