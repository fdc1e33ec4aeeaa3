"""Root file systems that a user brings: a folder, or a tar file as ``docker export`` writes it."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from edgetl.base.errors import DeviceError
from edgetl.devices.process import run_watched

_AARCH64 = 183
#: Folders of a running system, which are no use here and may hold what cannot be copied.
_SKIPPED = ("dev", "proc", "sys", "run", "tmp")


def copy_given(source: Path, folder: Path) -> None:
    """Copy a root file system into an empty folder.

    Args:
        source: a folder, or a tar file (compressed or not) of a whole file system.
        folder: where to.

    Raises:
        DeviceError: there is none, it is an image of layers, or it cannot be unpacked.
    """
    if source.is_dir():
        for entry in sorted(source.iterdir()):
            if entry.name in _SKIPPED:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.copytree(entry, folder / entry.name, symlinks=True)
            else:
                shutil.copy2(entry, folder / entry.name, follow_symlinks=False)
    else:
        _unpack(source, folder)
    _make_links_relative(folder)


def _unpack(source: Path, folder: Path) -> None:
    wanted = "give a folder or the output of: docker export CONTAINER > rootfs.tar"
    if not source.is_file() or not tarfile.is_tarfile(source):
        raise DeviceError(f"{source} is no root file system", wanted)
    skipped = [f"--exclude={prefix}{name}/*" for name in _SKIPPED for prefix in ("./", "")]
    options = ["--extract", "--no-same-owner", "--anchored", *skipped, "--file", str(source), "--directory"]
    done = run_watched(["tar", *options, str(folder)])
    if done.status:
        raise DeviceError(f"cannot unpack {source} ({done.last_line})", "free space, or check the file")
    if (folder / "manifest.json").is_file() and not (folder / "usr").is_dir():
        raise DeviceError(f"{source} is an image of layers, not a root file system", wanted)


def _make_links_relative(folder: Path) -> None:
    """An absolute link would lead from the emulated machine to this one."""
    for link in folder.rglob("*"):
        if link.is_symlink() and link.readlink().is_absolute():
            inside = folder / link.readlink().relative_to("/")
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))


def check_arm64(program: Path) -> None:
    """Check that a program is for 64-bit Arm.

    Raises:
        DeviceError: it is for another machine, or no program.
    """
    head = program.read_bytes()[:20]
    if head[:4] != b"\x7fELF" or int.from_bytes(head[18:20], "little") != _AARCH64:
        raise DeviceError(f"{program.name} of this root file system is not for arm64", "take an arm64 image")
