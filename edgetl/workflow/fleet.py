"""One verb on many devices: each has its time limit, none holds the others, and what is finished is kept.

outcomes = edgetl.deploy("out/rpi5", devices=["shop-1", "shop-2"])
edgetl.rollback(devices=["shop-2"], name="rpi5")
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetl import devices as places
from edgetl.base.errors import BundleError, DeviceError, EdgetlError
from edgetl.base.extras import missing
from edgetl.base.memory import shortage
from edgetl.base.progress import Progress, silent
from edgetl.base.schema import to_json
from edgetl.core.bench import BenchRecord
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.devices import Device, find_device, stop_all, time_limit
from edgetl.devices.placement import check_fits
from edgetl.runtime.installed import Installed
from edgetl.runtime.open_head import enrolled_head
from edgetl.workflow.audit import contradiction
from edgetl.workflow.time_bundle import plan_for, time_bundle
from edgetl.workflow.update_gate import Update, compare_with_current, gate_of

#: Devices that are worked on at once.
JOBS = 8
#: Seconds that each may take, from the first attempt to reach it.
TIMEOUT = 600.0
FAILED, KEPT = "failed", "kept"
#: What work on one device brings back.
Record = Installed | BenchRecord


@dataclass(frozen=True)
class Done:
    """What work on one device came to; see :class:`Outcome`."""

    state: str
    record: Record | None = None
    reason: str = ""
    update: Update | None = None


Work = Callable[[Device], Done]


@dataclass(frozen=True)
class Outcome:
    """How the work on one device ended.

    Attributes:
        device: its name.
        state: deployed, unchanged, rolled back, measured, kept (the release in charge stays), or failed.
        reason: why it failed, or why the release in charge stays, in one line; empty otherwise.
        seconds: that it took.
        record: what the work brought back; None if it failed.
        doubt: what speaks against the bundle that was deployed all the same; empty where nothing does.
        update: the test against the release that was in charge; None where there was none, or none was asked for.
    """

    device: str
    state: str
    reason: str
    seconds: float
    record: Record | None = None
    doubt: str = ""
    update: Update | None = None

    @property
    def failed(self) -> bool:
        """Whether something went wrong, and the device is as it was before."""
        return self.state == FAILED

    @property
    def kept(self) -> bool:
        """Whether the release in charge stays, as the new one is not shown to be as good."""
        return self.state == KEPT

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "device": self.device,
            "state": self.state,
            "reason": self.reason,
            "seconds": round(self.seconds, 2),
            "record": to_json(self.record) or {},
            **({"doubt": self.doubt} if self.doubt else {}),
            **({"update": to_json(self.update)} if self.update else {}),
        }


def deploy(
    bundle: str | Path | Bundle,
    devices: Sequence[str],
    *,
    name: str | None = None,
    force: bool = False,
    unless_worse: float | None = None,
    data: str | Path | None = None,
    public_key: str | Path | None = None,
    jobs: int = JOBS,
    timeout: float = TIMEOUT,
    progress: Progress = silent,
) -> list[Outcome]:
    """Put a bundle in charge on devices, each whole and self-tested there or not at all.

    Args:
        bundle: what to deploy.
        devices: names; ``edgetl devices`` lists them.
        name: what it is called there, so that a later deploy or rollback finds it; its target's name by default.
        force: deploy it though its certificate fails, is missing, or does not follow from its own predictions.
        unless_worse: a margin, in the unit of the certificate's metric: the release in charge there and this one answer
            the certify samples on the device, and it stays in charge unless a loss of that much is ruled out and no
            class collapsed (see :mod:`edgetl.workflow.update_gate`).
        data: where the certify samples lie now, as for :func:`edgetl.verify`.
        public_key: that must have signed all of it, here and there: a file, or 64 hexadecimal digits.
        jobs: devices that are worked on at once.
        timeout: seconds that each may take.
        progress: told of each device that is done.

    Returns:
        one outcome for each device, in order; ``record`` says what is in charge there.

    Raises:
        EdgetlError: the bundle is damaged, nothing certifies it, a device is unknown, samples are missing, or an option
            makes no sense: before any work starts.
    """
    opened = load_bundle(bundle, public_key)
    if enrolled_head(opened) is not None:
        what = f"{opened.path} has classes that were added to it, and a release is what was certified"
        raise BundleError(what, "forget them here, and enroll them on each device: python -m edgetl.runtime enroll")
    doubt, barred = doubt_of(opened)
    if barred and not force:
        raise BundleError(f"{opened.path}: {doubt}", "make it pass: edgetl verify; or deploy it all the same: --force")
    gate = None if unless_worse is None else gate_of(opened, unless_worse, data, progress)

    def work(device: Device) -> Done:
        probe = device.probe() if device.kind == "ssh" else None
        if probe is not None and not probe.reachable:
            raise DeviceError(probe.reason, probe.remedy)
        check_fits(opened, device, (probe.machine.arch or "") if probe else device.arch)
        called = name or opened.target
        update = None if gate is None else compare_with_current(opened, device, called, gate, progress)
        if update is not None and update.verdict != "pass":
            return Done(KEPT, None, update.said, update)
        record = places.install(device, opened, called)
        return Done(record.state, record, "", update)

    done = each(devices, work, task=f"deploying {opened.target}", jobs=jobs, timeout=timeout, progress=progress)
    return [replace(outcome, doubt=doubt) for outcome in done]


def doubt_of(bundle: Bundle) -> tuple[str, bool]:
    """What speaks against deploying a bundle, "" for nothing, and whether that takes ``force``."""
    try:
        certificate = bundle.certificate
        if certificate is None:
            return "nothing certifies it", True
        wrong = contradiction(bundle)
    except EdgetlError as error:
        return error.what, True
    if wrong is not None:
        return f"its certificate is not this bundle's: {wrong}", True
    if certificate.verdict == "fail":
        return "its certificate fails", True
    return ("its certificate is underpowered", False) if certificate.verdict == "underpowered" else ("", False)


def rollback(
    devices: Sequence[str],
    *,
    name: str,
    jobs: int = JOBS,
    timeout: float = TIMEOUT,
    progress: Progress = silent,
) -> list[Outcome]:
    """Put the previous release in charge again on devices, if it passes its self-test there.

    Args:
        devices, jobs, timeout, progress: as for :func:`deploy`.
        name: what the bundle is called there.

    Returns:
        one outcome for each device, in order.

    Raises:
        EdgetlError: a device is unknown, or an option makes no sense: before any work starts.
    """

    def work(device: Device) -> Done:
        record = places.rollback(device, name)
        return Done(record.state, record)

    return each(devices, work, task=f"rolling back {name}", jobs=jobs, timeout=timeout, progress=progress)


def bench_devices(
    bundle: str | Path | Bundle,
    devices: Sequence[str],
    *,
    duration: float | None = None,
    until: float | None = None,
    threads: int = 1,
    scenario: str = "single-stream",
    streams: int | None = None,
    harness: str = "edgetl",
    against: str | Path | Bundle | None = None,
    jobs: int = JOBS,
    timeout: float = TIMEOUT,
    progress: Progress = silent,
) -> list[Outcome]:
    """Time a bundle on devices; each one's record is written as ``bench-DEVICE.json`` the moment it is there.

    Args:
        bundle: what to time.
        devices, jobs, timeout, progress: as for :func:`deploy`.
        duration, until, threads, scenario, streams, harness, against: as for :func:`edgetl.pipeline.bench`.

    Returns:
        one outcome for each device, in order; ``record`` is its benchmark record.

    Raises:
        EdgetlError: the bundle is damaged, a device is unknown, or an option makes no sense: before any work starts.
    """
    plan = plan_for(duration, until, threads, scenario, streams, harness)
    opened = load_bundle(bundle)
    other = None if against is None else load_bundle(against)

    def work(device: Device) -> Done:
        return Done("measured", time_bundle(opened, plan, device.name, other, file=record_name(device.name)))

    return each(devices, work, task=f"timing {opened.target}", jobs=jobs, timeout=timeout, progress=progress)


def record_name(device: str) -> str:
    """The file of a bundle that holds what was measured on one device of several."""
    return f"bench-{device}.json"


def each(
    names: Sequence[str], work: Work, *, task: str, jobs: int, timeout: float, progress: Progress
) -> list[Outcome]:
    """Do ``work`` on each device, ``jobs`` at a time, and wait for none longer than ``timeout`` seconds.

    Raises:
        UnknownNameError: a device is unknown.
        EdgetlError: no device, or jobs or timeout are no positive numbers.
    """
    if not names:
        raise EdgetlError("no device is named", "say which with --device; edgetl devices lists them")
    if jobs < 1 or not 0 < timeout <= threading.TIMEOUT_MAX:
        raise EdgetlError(f"cannot do {jobs} at once within {timeout:g} s", "give positive --jobs and --timeout")
    devices = [find_device(name) for name in dict.fromkeys(names)]
    done: dict[str, Outcome] = {}
    progress(task, 0, len(devices))
    with ThreadPoolExecutor(min(jobs, len(devices)), thread_name_prefix="edgetl-fleet") as pool:
        waiting: list[Future[Outcome]] = [pool.submit(_outcome, device, work, timeout) for device in devices]
        try:
            for future in as_completed(waiting):
                outcome = future.result()
                done[outcome.device] = outcome
                progress(task, len(done), len(devices), f"{outcome.device}: {outcome.state}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A worker may be about to start its next command when its last one is killed.
            while any(future.running() for future in waiting):
                stop_all()
                time.sleep(0.05)
            raise
    return [done[device.name] for device in devices]


def _outcome(device: Device, work: Work, timeout: float) -> Outcome:
    began = time.monotonic()
    try:
        with time_limit(timeout):
            done = work(device)
        seconds = time.monotonic() - began
        return Outcome(device.name, done.state, done.reason, seconds, done.record, update=done.update)
    except EdgetlError as error:
        return Outcome(device.name, FAILED, str(error), time.monotonic() - began)
    except Exception as error:  # a bug met on one device must not lose what others have measured
        known = missing(error) or shortage(error)
        if known is not None:
            return Outcome(device.name, FAILED, str(known), time.monotonic() - began)
        said = " ".join(f"a bug in edgetl: {type(error).__name__}: {error}".split())
        return Outcome(device.name, FAILED, said[:300], time.monotonic() - began)
    finally:
        device.close()
