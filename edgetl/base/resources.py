"""Where the data that travels with edgetl lies: target descriptions, calibration recipes, the C runner."""

from __future__ import annotations

from pathlib import Path

from edgetl.base.errors import EdgetlError

_PACKAGE = Path(__file__).resolve().parents[1]


def resource(name: str) -> Path:
    """The folder ``targets``, ``calibration`` or ``runner``, in a wheel, in a checkout or in an editable install.

    Raises:
        EdgetlError: the installation lacks it.
    """
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise EdgetlError(f"this installation of edgetl lacks its '{name}' folder", "reinstall edgetl")
