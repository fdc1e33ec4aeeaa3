"""What of edgetl goes to a device: ``edgetl.runtime`` and the modules that it imports, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from edgetl.base.errors import DeviceError
from edgetl.base.storage import sha256_bytes, sha256_json

_PACKAGE = Path(__file__).resolve().parent.parent
_RUNTIME = _PACKAGE / "runtime"
#: Read by their spelling: parsing sixty files takes a third of a second, for every call of an emulated machine.
_IMPORT = re.compile(r"^ *from (edgetl\.[\w.]+) import (\([^)]*\)|[^\n]*)", re.MULTILINE)

#: What of edgetl ``receiver.py`` imports; it imports nothing of edgetl itself.
_TAKEN_ALONG = ("edgetl.base.names",)


def import_root() -> Path:
    """The folder from which this very edgetl is imported."""
    return _PACKAGE.parent


@lru_cache(maxsize=1)
def payload() -> dict[str, bytes]:
    """The device's share of edgetl: path below the import root (``edgetl/…``) → content.

    Raises:
        DeviceError: this installation has no plain files (a zipped one), or lacks some.
    """
    content: dict[Path, bytes] = {}
    # Sessions are opened by name: what their modules import is found by starting from all of them.
    waiting = [_PACKAGE / "__init__.py", *_RUNTIME.rglob("*.py")]
    try:
        while waiting:
            file = waiting.pop()
            if file not in content:
                content[file] = file.read_bytes()
                # The façade at the top names every part, and imports none before it is asked.
                waiting += () if file.parent == _PACKAGE else _imported(content[file])
    except OSError as error:
        raise DeviceError(f"this installation of edgetl is incomplete ({error})", "reinstall edgetl") from error
    return {file.relative_to(_PACKAGE.parent).as_posix(): content[file] for file in sorted(content)}


def _imported(source: bytes) -> Iterator[Path]:
    """Files of the modules of edgetl that a module imports, with the packages that hold them."""
    for module, names in _IMPORT.findall(source.decode()):
        parts = module.split(".")[1:]
        folders = [_PACKAGE.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
        modules = [folders[-1], *(folders[-1] / name for name in re.findall(r"\w+", names))]
        files = [*(folder / "__init__.py" for folder in folders), *(path.with_suffix(".py") for path in modules)]
        yield from (file for file in files if file.is_file())


def payload_digest(content: dict[str, bytes]) -> str:
    """SHA-256 that names one version of the payload."""
    return sha256_json({name: sha256_bytes(data) for name, data in content.items()})


@lru_cache(maxsize=1)
def receiver_program() -> str:
    """``receiver.py`` for ``python -c`` on a device, with what it imports of edgetl."""
    modules = {name: (_PACKAGE.parent / name.replace(".", "/")).with_suffix(".py") for name in _TAKEN_ALONG}
    lines = ["import sys, types"]
    for name, file in modules.items():
        lines += [
            f"sys.modules[{name!r}] = types.ModuleType({name!r})",
            f"exec({file.read_text(encoding='utf-8')!r}, vars(sys.modules[{name!r}]))",
        ]
    receiver = (_PACKAGE / "devices/receiver.py").read_text(encoding="utf-8")
    return "\n".join([*lines, f"exec({receiver!r})"])


def write_payload(folder: Path) -> Path:
    """Lay the payload out below ``folder``, to be put on ``PYTHONPATH``; returns ``folder``."""
    for name, data in payload().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder
