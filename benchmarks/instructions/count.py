"""Counts the instructions that emulated Arm code executes: qemu-user with the plugin ``count.c`` beside this file.

A number of instructions is no time: they differ in cost, and no cache, no branch predictor and no memory is modelled.
It is a *proxy* that compares what two artifacts ask of one core, and it repeats.

Needs gcc and Debian's ``qemu-user``: the static build of qemu loads no plugins.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.devices.rootfs import read_marker

QEMU = "qemu-aarch64"
#: Columns of the plugin's file.
KINDS = ("instructions", "integer_dot", "integer_widening", "float_multiply")
CALLS, PROCESSES = 3, 2
#: Versions of the plugin interface; QEMU 7.2 knows 1, and a later one may refuse the oldest.
_VERSIONS = range(1, 8)


def missing() -> str | None:
    """The Debian package to install before anything can be counted, or None."""
    return next((package for tool, package in ((QEMU, "qemu-user"), ("gcc", "gcc")) if not shutil.which(tool)), None)


def per_call(
    root: Path, arguments: Sequence[str], work: Path, *, environment: Mapping[str, str], calls: int = CALLS
) -> dict[str, Any]:
    """Instructions of a call, as the median over calls, so that neither start-up nor packing of weights counts.

    Args:
        root: of an emulated device (:func:`edgetl.devices.rootfs.create_rootfs`).
        arguments: of its Python; the number of calls is added as the last. Each call stands between two marks.
        work: where the compiled plugin is kept.
        environment: of the process.
        calls: in each of two processes.

    Returns:
        each of :data:`KINDS`; ``spread``, the widest difference of any two calls of both processes, as a share.
    """
    marker = read_marker(root)
    python = str(root / "usr/bin" / str(marker["python"]))
    command = ["-cpu", str(marker["cpu"]), "-L", str(root), python, *arguments, str(calls)]
    each = np.concatenate([between_marks(command, work, environment) for _ in range(PROCESSES)])
    if len(each) != PROCESSES * calls:
        raise SystemExit(f"{len(each)} pairs of marks for {PROCESSES * calls} calls: something else marks too")
    middle = np.median(each, axis=0).astype(int)
    spread = float(np.ptp(each[:, 0])) / float(middle[0])
    named = {kind: int(value) for kind, value in zip(KINDS, middle, strict=True)}
    return {**named, "spread": spread, "processes": PROCESSES, "calls": calls, "cpu": marker["cpu"]}


def between_marks(
    command: Sequence[str], work: Path, environment: Mapping[str, str] | None = None
) -> npt.NDArray[np.int64]:
    """What a program executes from its first mark to its second, from its third to its fourth, and so on.

    Args:
        command: options of qemu, the program and its arguments.
        work: where the compiled plugin is kept.
        environment: of the process; this one's when None.

    Returns:
        (pairs of marks, 4): columns are :data:`KINDS`, summed over all threads.
    """
    plugin = _plugin(work)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "counts"
        started = [QEMU, "-plugin", f"{plugin},out={out}", *command]
        done = subprocess.run(started, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{command[-1]} under {QEMU}: {done.stderr.strip()[-500:]}")
        marks = np.loadtxt(out, dtype=np.int64, ndmin=2)
    return np.asarray(marks[1::2] - marks[: len(marks) // 2 * 2 : 2], np.int64)


def _plugin(work: Path) -> Path:
    if package := missing():
        raise SystemExit(f"counting instructions needs {package}: apt-get install {package}")
    work.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("count.c")
    plugin = work / "count.so"
    if plugin.is_file() and plugin.stat().st_mtime > source.stat().st_mtime:
        return plugin
    for version in _VERSIONS:
        options = ["-shared", "-fPIC", "-O2", f"-DPLUGIN_VERSION={version}"]
        subprocess.run(["gcc", *options, "-o", str(plugin), str(source)], check=True)
        tried = [QEMU, "-plugin", f"{plugin},out={work / 'tried'}", "-version"]
        if not subprocess.run(tried, capture_output=True, check=False).returncode:
            return plugin
    plugin.unlink()
    raise SystemExit(f"{QEMU} takes no plugin interface from {_VERSIONS[0]} to {_VERSIONS[-1]}")
