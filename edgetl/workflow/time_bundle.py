"""How a bundle is timed where it belongs, alone or against another one, and ``bench.json``."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import cast

from edgetl import devices
from edgetl.base.errors import BackendError, EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.core.bench import BenchRecord
from edgetl.core.bundle import BENCH, GOLDEN, Artifact, Bundle, load_bundle, write_manifest
from edgetl.core.manifest import Manifest
from edgetl.devices.placement import Placement, place
from edgetl.latency import bench_record
from edgetl.runtime.plan import Harness, Plan, Scenario

#: Seconds of timing that a command takes, and at most where it has a goal.
SECONDS, LONGEST_SECONDS = 10.0, 120.0
#: Those that ``export`` spends on each bundle.
EXPORT_SECONDS = 4.0


def plan_for(
    duration: float | None = None,
    until: float | None = None,
    threads: int = 1,
    scenario: str = "single-stream",
    streams: int | None = None,
    harness: str = "edgetl",
) -> Plan:
    """How to time, from a command's options; see :func:`edgetl.pipeline.bench`.

    Raises:
        EdgetlError: a value makes no sense, or does not go with another.
    """
    longest = duration if duration is not None else SECONDS if until is None else LONGEST_SECONDS
    return Plan(longest, threads, until, cast(Scenario, scenario), streams, cast(Harness, harness))


def time_bundle(
    bundle: Bundle,
    plan: Plan,
    device: str | None,
    against: Bundle | None = None,
    progress: Progress = silent,
    file: str = BENCH,
) -> BenchRecord:
    """Time a bundle and write ``file``, its ``bench.json``; see :func:`edgetl.pipeline.bench`."""
    at = _native(bundle, device)
    if against is None:
        record = bench_record(devices.bench(at.device, bundle, plan, progress=progress))
        return bundle.write_bench(replace(record, executed=at.executed), file)
    if plan.harness != "edgetl":
        raise EdgetlError("LoadGen cannot let two bundles take turns", "leave --harness or --against out")
    if against.digest == bundle.digest:
        raise EdgetlError(f"{against.path} is {bundle.path} itself", "name another bundle behind --against")
    _native(against, device)
    with tempfile.TemporaryDirectory(prefix="edgetl-pair-") as folder:
        pair = _pair(bundle, against, Path(folder) / "pair")
        record = bench_record(devices.bench(at.device, pair, plan, progress=progress))
    if record.against is not None:
        other = replace(record.against, manifest=against.digest, target=against.target, precision=against.precision)
        record = replace(record, against=other)
    return bundle.write_bench(replace(record, executed=at.executed), file)


def _native(bundle: Bundle, device: str | None) -> Placement:
    at = place(bundle, device)
    if at.executed == "simulated":
        raise BackendError(
            f"{bundle.path} cannot be timed on {at.device.name}: it is made for {bundle.target}, which is only "
            "simulated there, and simulated time is not device time",
            "bench on the device itself: edgetl devices add NAME ssh://user@host",
        )
    return at


def _pair(bundle: Bundle, against: Bundle, folder: Path) -> Bundle:
    """One bundle of both, so that any device takes them as it takes every bundle and times them in one process."""
    roles = [role for role in ("deployed", "float") if role in bundle.manifest.artifacts]
    artifacts = {role: _copied(bundle.artifact(role), folder / role) for role in roles}
    if "float" in roles and bundle.artifact("float") == bundle.artifact("deployed"):
        artifacts["float"] = artifacts["deployed"]
    artifacts["against"] = _copied(against.artifact(), folder / "against")
    for whose, where in ((bundle, folder), (against, folder / "against")):
        if (whose.path / GOLDEN).is_file():
            shutil.copyfile(whose.path / GOLDEN, where / GOLDEN)
    pair = (bundle.digest, against.digest)
    write_manifest(folder, Manifest(target=bundle.manifest.target, pair=pair), artifacts)
    return load_bundle(folder)


def _copied(artifact: Artifact, folder: Path) -> Artifact:
    # The whole folder: beside a model may lie what its runtime builds it with.
    shutil.copytree(artifact.path.parent, folder)
    return Artifact(artifact.backend, folder / artifact.path.name, artifact.precision, artifact.device)
