"""Read this first: the journey's stages in order, one public function for each verb.

    samples → finetune → Run → export (ONNX → quantize → compile) → Bundle → verify → Certificate
                                                                        └→ bench → report

Stages know only Runs and Bundles; here they meet. The first verb is :func:`edgetl.transfer.finetune.finetune`; it needs
torch, so it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from edgetl.base.extras import check_installed
from edgetl.base.progress import Progress, silent
from edgetl.certify import Certificate, verify_arrays
from edgetl.core.bench import BenchRecord
from edgetl.core.bundle import BENCH, Bundle, load_bundle
from edgetl.core.data import SPLITS, located, refuse_inside
from edgetl.core.run import Run, load_run
from edgetl.core.targets import find_target
from edgetl.devices.placement import answer
from edgetl.reporting.html import write_report
from edgetl.runtime.predictor import TOP, Prediction
from edgetl.workflow.build_bundle import build_bundle
from edgetl.workflow.certify_bundle import Terms, certify_again, certify_bundle
from edgetl.workflow.exported import Demo, Exported
from edgetl.workflow.requests import REPAIR_MINUTES, minutes_for, requests_for
from edgetl.workflow.sources import open_source
from edgetl.workflow.stage_cache import workspace
from edgetl.workflow.time_bundle import EXPORT_SECONDS, plan_for, time_bundle
from edgetl.workflow.transfer_outcome import transfer_outcome
from edgetl.workflow.verify_bundle import verify_bundle

if TYPE_CHECKING:
    import numpy.typing as npt


def export(
    run: str | Path | Run,
    *,
    targets: str | Sequence[str],
    out: str | Path,
    data: str | Path | None = None,
    precision: str | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    samples: str | None = None,
    calibration_images: int | None = None,
    batch: int | None = None,
    bench: bool = True,
    threads: int = 1,
    metric: str | None = None,
    value_range: tuple[float, float] | None = None,
    repair: bool = True,
    budget_minutes: float = REPAIR_MINUTES,
    artifact: str | Path | None = None,
    progress: Progress = silent,
) -> list[Exported]:
    """Compress a run for each target, certify it, and time it where this machine can.

    Args:
        run: a run or its folder.
        targets: a name or alias, or several; ``out/NAME`` becomes each one's bundle.
        out: folder of the bundles; finished stages are kept in ``out/.work`` and used again.
        data: where the run's samples lie now, if not where they lay; they are recognised by their hashes.
        precision: int8, fp16 or fp32; each target's own default when None.
        margin, alpha: of the certificates; see :func:`verify`.
        samples, calibration_images: override the recipe's choice of calibration samples.
        batch: fixed batch size of the graph; None leaves it open.
        bench: also time each bundle that this machine executes natively.
        threads: for timing.
        metric: of the certificates; the task's default when None, as is the margin.
        value_range: of a regression; see :func:`verify`.
        repair: climb the repair ladder where int8 loses too much on the search split.
        budget_minutes: that the climb may take for each target.
        artifact: a file that another tool compressed (``.onnx``, an OpenVINO ``.xml``, ``.tflite``), which is then
            deployed, certified and timed in the place of edgetl's own; nothing is repaired.
        progress: told of every long step.

    Returns:
        one outcome for each target, in order.

    Raises:
        EdgetlError: before any work starts, for anything that is wrong with the arguments.
        DataError: samples are missing or were changed.
    """
    opened = run if isinstance(run, Run) else load_run(run)
    check_installed("exporting a trained model", "torch", "onnx")
    source = str(opened.settings.get("data", ""))
    if Path(source).is_absolute():
        refuse_inside(Path(out), source)
    terms = Terms.of(opened, margin, alpha, metric, value_range)
    timed = plan_for(EXPORT_SECONDS, threads=threads)
    requests = requests_for(
        opened,
        [targets] if isinstance(targets, str) else targets,
        precision,
        selection=samples,
        size=calibration_images,
        batch=batch,
        margin=terms.margin,
        minutes=minutes_for(budget_minutes, repair),
        artifact=artifact,
    )
    done = []
    with workspace(Path(out)) as work:
        if data is not None:
            found = replace(opened, dataset=located(opened.dataset, data, progress=progress))
            requests = [replace(request, run=found) for request in requests]
        for request in requests:
            made = build_bundle(request, Path(out), work, progress)
            certificate = certify_again(made, terms) or certify_bundle(
                made, terms, data=data, device=None, predictions=None, corruptions=False, progress=progress
            )
            record = made.bench
            if bench and record is None and certificate.executed == "host":
                record = time_bundle(made, timed, None, progress=progress)
            done.append(Exported(made, certificate, record))
    return done


@overload
def verify(
    bundle: str | Path | Bundle,
    *,
    data: str | Path | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    metric: str | None = None,
    value_range: tuple[float, float] | None = None,
    sequential: bool = False,
    device: str | None = None,
    predictions: str | Path | None = None,
    corruptions: bool = False,
    runner: str | None = None,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    run: str | Path | None = None,
    public_key: str | Path | None = None,
    progress: Progress = silent,
) -> Certificate: ...


@overload
def verify(
    *,
    reference: npt.ArrayLike,
    deployed: npt.ArrayLike,
    labels: npt.ArrayLike,
    margin: float | None = None,
    alpha: float = 0.05,
    metric: str | None = None,
    groups: npt.ArrayLike | None = None,
    value_range: tuple[float, float] | None = None,
    sequential: bool = False,
) -> Certificate: ...


def verify(bundle: str | Path | Bundle | None = None, **options: Any) -> Certificate:
    """Is the deployed model as good as the trained one? One-sided paired non-inferiority on held-out samples.

    A bundle (:func:`verify_bundle`), or three arrays of one length (:func:`verify_arrays`).

    Raises:
        CertifyError: arrays that do not fit, a bad margin, or samples that are not there.
    """
    return verify_arrays(**options) if bundle is None else verify_bundle(bundle, **options)


def predict(
    bundle: str | Path | Bundle,
    files: Sequence[str | Path],
    *,
    device: str | None = None,
    top: int = TOP,
    public_key: str | Path | None = None,
    progress: Progress = silent,
) -> list[Prediction]:
    """What a bundle answers to sample files, here or on a device; :func:`edgetl.load_bundle` keeps it loaded instead.

    Args:
        bundle: what to ask.
        files: images, texts or arrays, as its network takes them.
        device: where; this machine when None.
        top: most labels that an answer names.
        public_key: that must have signed the bundle: a file, or 64 hexadecimal digits.
        progress: told of each file.

    Returns:
        an answer for each file, in order.

    Raises:
        DataError: a file is missing or damaged.
        DeviceError: the bundle cannot run there.
    """
    return answer(load_bundle(bundle, public_key), [Path(file) for file in files], device, top=top, progress=progress)


def bench(
    bundle: str | Path | Bundle,
    *,
    device: str | None = None,
    duration: float | None = None,
    until: float | None = None,
    threads: int = 1,
    scenario: str = "single-stream",
    streams: int | None = None,
    against: str | Path | Bundle | None = None,
    harness: str = "edgetl",
    record: str = BENCH,
    progress: Progress = silent,
) -> BenchRecord:
    """Time a bundle and its float twin in turn and write ``bench.json``.

    Args:
        bundle: what to time.
        device: where; this machine when None.
        duration: seconds of measuring (10 by default; at least 30 rounds are made); with ``until``, the longest (120).
        until: go on until the 95 % interval of p90 is narrower than this share of it, such as 0.02.
        threads: worker threads of each session of the runtime.
        scenario: ``single-stream`` (one sample after another), ``multi-stream`` (several at once, the latency of all)
            or ``offline`` (throughput, all cores, in the fastest of a few ways that are tried first).
        streams: sessions at work at once; the device's cores decide when None.
        against: another bundle, whose artifact takes turns with this one's.
        harness: ``edgetl``, or ``loadgen``: MLPerf's, which asks this artifact alone.
        record: the file of the bundle to write, where it is not ``bench.json``.
        progress: told once a second.

    Returns:
        the record: percentiles with intervals, all samples, cold start, memory, energy, what precision was executed,
        and whether something disturbed the measurement.

    Raises:
        EdgetlError: the bundle cannot be executed natively there, so its times would mean nothing.
    """
    plan = plan_for(duration, until, threads, scenario, streams, harness)
    other = None if against is None else load_bundle(against)
    return time_bundle(load_bundle(bundle), plan, device, other, progress, record)


def report(
    sources: str | Path | Run | Bundle | Sequence[str | Path | Run | Bundle],
    out: str | Path = "report.html",
    *,
    data: str | Path | None = None,
) -> Path:
    """Write one self-contained HTML page about runs and bundles; returns its path.

    Args:
        sources: runs and bundles or their folders, one or more.
        out: the page.
        data: the folder in which the samples lie now, if it is not where the run found them.

    Raises:
        EdgetlError: a folder is neither a run nor a bundle, one is damaged, or the page cannot be written.
    """
    given = [sources] if isinstance(sources, str | Path | Run | Bundle) else sources
    opened = [open_source(source) for source in given]
    transfers = {source.path: transfer_outcome(source) for source in opened if isinstance(source, Run)}
    return write_report(opened, Path(out), data_root=None if data is None else Path(data), transfers=transfers)


def demo(out: str | Path = "demo", *, progress: Progress = silent) -> Demo:
    """The whole journey on the embedded digits, which are many enough to pass, for one target of each family."""
    check_installed("the demo", "torch", "timm", "sklearn", "onnx", "openvino", "nncf", "jinja2")
    from edgetl.transfer.finetune import finetune

    folder = Path(out)
    shares = dict(zip(SPLITS, (0.3, 0.1, 0.08, 0.02, 0.5), strict=True))
    run = finetune("sklearn:digits", folder / "run", image_size=64, epochs=4, shares=shares, progress=progress)
    cpu = next(n for n in ("x86-generic", "arm64-generic") if find_target(n).executes_on_host() == "host")
    done = export(run, targets=["jetson", "intel-cpu", cpu], out=folder / "bundles", progress=progress)
    page = report([item.bundle for item in done], folder / "report.html")
    return Demo(run, done, page)
