"""What of edgetl goes to a device: the modules that ``edgetl.runtime`` imports, and nothing else."""

from __future__ import annotations

from pathlib import Path

from edgetl.base.errors import DeviceError
from edgetl.base.storage import sha256_bytes, sha256_json

_PACKAGE = Path(__file__).resolve().parent.parent
#: The packages of the layers that a device has: ``edgetl.runtime`` and what lies below it.
_LAYERS = ("base", "core", "inputs", "tasks", "runtime")


def import_root() -> Path:
    """The folder from which this very edgetl is imported."""
    return _PACKAGE.parent


def payload() -> dict[str, bytes]:
    """The device's share of edgetl: path below the import root (``edgetl/…``) → content.

    Raises:
        DeviceError: this installation has no plain files (a zipped one), or lacks some.
    """
    files = [
        _PACKAGE / "__init__.py",
        *(file for layer in _LAYERS for file in sorted((_PACKAGE / layer).rglob("*.py"))),
    ]
    try:
        return {file.relative_to(_PACKAGE.parent).as_posix(): file.read_bytes() for file in files}
    except OSError as error:
        raise DeviceError(f"this installation of edgetl is incomplete ({error})", "reinstall edgetl") from error


def payload_digest(content: dict[str, bytes]) -> str:
    """SHA-256 that names one version of the payload."""
    return sha256_json({name: sha256_bytes(data) for name, data in content.items()})


def write_payload(folder: Path) -> Path:
    """Lay the payload out below ``folder``, to be put on ``PYTHONPATH``; returns ``folder``."""
    for name, data in payload().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder
