"""Counts the instructions that emulated Arm code executes: qemu-user with the plugin ``count.c`` beside this file.

A number of instructions is no time: kernels differ in instructions a cycle, and no cache, no branch predictor and no
memory is modelled. It is a *proxy* that compares what two artifacts ask of one core, and it repeats.

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

from edgetl.devices.rootfs import read_marker

QEMU = "qemu-aarch64"
#: Columns of the plugin's file.
KINDS = ("instructions", "integer_dot", "integer_widening", "float_multiply")
CALLS, PROCESSES = 3, 2
#: Version of the plugin interface that a QEMU takes: 7.2 knows 1, and later ones refuse the oldest in turn.
_VERSIONS = range(1, 8)


def per_call(
    root: Path, arguments: Sequence[str], work: Path, *, environment: Mapping[str, str], calls: int = CALLS
) -> dict[str, Any]:
    """Instructions between two marks, as the median over calls.

    Args:
        root: of an emulated device (:func:`edgetl.devices.rootfs.create_rootfs`).
        arguments: of its Python; the number of calls is added as the last. Each call is enclosed in marks.
        work: where the compiled plugin is kept.
        environment: of the process.
        calls: in each of two processes.

    Returns:
        each of :data:`KINDS`; ``spread``, the widest difference of any two calls of both processes, as a share.
    """
    marker = read_marker(root)
    plugin = _plugin(work)
    counts = []
    for _ in range(PROCESSES):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "counts"
            emulator = [QEMU, "-plugin", f"{plugin},out={out}", "-cpu", str(marker["cpu"]), "-L", str(root)]
            command = [*emulator, str(root / "usr/bin" / str(marker["python"])), *arguments, str(calls)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                raise SystemExit(f"{arguments[0]} under {QEMU}: {done.stderr.strip()[-500:]}")
            marks = np.loadtxt(out, dtype=np.int64)
        if len(marks) != 2 * calls:
            raise SystemExit(f"{len(marks)} marks for {calls} calls: something else calls getpriority(2)")
        counts.append(marks[1::2] - marks[::2])
    each = np.concatenate(counts)
    total = each[:, 0]
    middle = np.median(each, axis=0).astype(int)
    spread = float(total.max() - total.min()) / float(middle[0])
    return {**{kind: int(value) for kind, value in zip(KINDS, middle, strict=True)}, "spread": spread,
            "processes": PROCESSES, "calls": calls, "cpu": marker["cpu"]}  # fmt: skip


def _plugin(work: Path) -> Path:
    for tool, package in ((QEMU, "qemu-user"), ("gcc", "gcc")):
        if shutil.which(tool) is None:
            raise SystemExit(f"counting instructions needs {tool}: apt-get install {package}")
    work.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("count.c")
    plugin = work / "count.so"
    if plugin.is_file() and plugin.stat().st_mtime > source.stat().st_mtime:
        return plugin
    for version in _VERSIONS:
        options = ["-shared", "-fPIC", "-O2", f"-DPLUGIN_VERSION={version}"]
        subprocess.run(["gcc", *options, "-o", str(plugin), str(source)], check=True)
        tried = subprocess.run(
            [QEMU, "-plugin", f"{plugin},out={work / 'tried'}", "-version"], capture_output=True, text=True, check=False
        )
        if "version" not in tried.stderr:
            return plugin
    plugin.unlink()
    raise SystemExit(f"{QEMU} takes no plugin interface from {_VERSIONS[0]} to {_VERSIONS[-1]}")
