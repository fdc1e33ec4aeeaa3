"""From a Run to a Bundle: export, compress, repair where needed, compile, golden vectors, seal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetl.backends import BACKENDS
from edgetl.base.errors import BundleError, DataError, EdgetlError
from edgetl.base.progress import Progress
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import new_folder, read_json, sha256_file, write_bytes, write_json
from edgetl.core.bundle import (
    CALIBRATION,
    EXPORTED,
    HEAD,
    LABELS,
    LAYERS,
    MANIFEST,
    REFERENCE,
    REPAIR,
    SOURCE,
    SPLITS_FILE,
    Artifact,
    Bundle,
    Precision,
    load_bundle,
    write_manifest,
)
from edgetl.core.compression import Calibration
from edgetl.core.manifest import Manifest, TrainedRun
from edgetl.core.run import Run
from edgetl.core.seen import write_seen
from edgetl.core.targets import Target
from edgetl.inputs import input_of, write_input
from edgetl.reporting.kit import Subject, write_kit
from edgetl.workflow.candidates import Candidates, Compressed
from edgetl.workflow.given_artifact import compressed_elsewhere
from edgetl.workflow.golden_vectors import write_golden
from edgetl.workflow.network_reference import reference_of
from edgetl.workflow.open_head import Opened, in_float, opened, spec_of
from edgetl.workflow.portable import calibrated_on, for_certifying, note_data, samples_home, without_places
from edgetl.workflow.readings import note_run
from edgetl.workflow.reference import EXPORTED as MODEL
from edgetl.workflow.reference import Answers, answers, exported
from edgetl.workflow.repair_search import Selected, search_repair
from edgetl.workflow.requests import Request
from edgetl.workflow.stage_cache import versions


def build_bundle(request: Request, out: Path, work: Path, progress: Progress) -> Bundle:
    """The finished bundle ``out/NAME``, made if it is not there yet, damaged, or made from something else."""
    folder, key = out / request.name, request.key()
    try:
        there = load_bundle(folder)
        if there.manifest.key == key:
            note_data(out, there.splits, samples_home(request.run.dataset))
            note_run(out, request.run)
            return there
    except BundleError as error:
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise EdgetlError(f"{folder} exists and is no bundle", "choose another --out, or remove it") from error
    _refuse_absent(request.run)
    reference = reference_of(request.run)
    floating = exported(reference, request.batch, work, progress)
    expected = answers(reference, floating, work, progress)
    candidates = Candidates(reference, request.target, floating, work, progress, request.batch)
    compressed = _compressed(request, candidates, expected)
    with new_folder(folder) as partial:
        _fill(partial, request, key, candidates, expected, compressed)
    made = load_bundle(folder)
    note_data(out, made.splits, samples_home(request.run.dataset))
    note_run(out, request.run)
    return made


def _refuse_absent(run: Run) -> None:
    """What is not there now must not be found missing after minutes of work."""
    absent = [sample.path for sample in run.dataset.samples if not run.dataset.file(sample).is_file()]
    if absent:
        what = f"{len(absent)} of {len(run.dataset.samples)} samples of {run.path} are not in {run.dataset.root}"
        raise DataError(f"{what} (first: {absent[0]})", "say where they are now: --data FOLDER")


@dataclass(frozen=True)
class _Networks:
    """What is compiled: the model that is deployed, its float twin, and the head of the first that stands open."""

    selected: Selected
    twin: Compressed
    head: Opened | None


def _compressed(request: Request, candidates: Candidates, expected: Answers) -> _Networks:
    if request.artifact:
        compressed, noises = compressed_elsewhere(candidates, request.artifact)
        return _Networks(Selected(compressed, None, noises), candidates.in_float(_widest(request)), None)
    recipe, spec = request.recipe(candidates.floating / MODEL), spec_of(request.run, request.target)
    if spec is not None and recipe is not None:
        recipe = in_float(recipe, candidates.floating)
    wanted = (request.precision, recipe, expected.search, request.margin, request.minutes)
    selected = search_repair(candidates, *wanted)
    twin = candidates.in_float(_widest(request))
    if spec is None:
        return _Networks(selected, twin, None)
    head = opened(candidates, selected.compressed, spec)
    # A float model is its own yardstick; a second copy of it would only be timed against itself.
    twin = head.compressed if selected.compressed.model == twin.model else twin
    return _Networks(replace(selected, compressed=head.compressed), twin, head)


def _widest(request: Request) -> Precision:
    """The widest float precision that the target runs: the yardstick of the bench."""
    runtime = BACKENDS[request.target.backend]
    widths: tuple[Precision, ...] = ("fp32", "fp16")
    return next((p for p in widths if runtime.refuses(request.target, p) is None), request.precision)


def _fill(
    folder: Path,
    request: Request,
    key: str,
    candidates: Candidates,
    expected: Answers,
    networks: _Networks,
) -> None:
    run, selected, head = request.run, networks.selected, networks.head
    artifacts = _compiled(folder, request, selected.compressed, networks.twin, candidates.progress)
    if head is not None:
        write_bytes(folder / HEAD, head.file.read_bytes())
    write_json(folder / LABELS, list(run.classes))
    write_input(folder, input_of(run))
    write_json(folder / SPLITS_FILE, for_certifying(run.dataset).to_json())
    write_seen(folder, (sample for sample in run.dataset.samples if sample.split in ("train", "val")))
    write_json(folder / LAYERS, to_json(selected.layers))
    file = selected.compressed.folder / CALIBRATION
    chosen = from_json(Calibration, read_json(file), file)
    write_json(folder / CALIBRATION, to_json(calibrated_on(chosen, run.dataset)))
    expected.save(folder / REFERENCE)
    sources = _sources(folder, candidates.floating, selected.compressed)
    manifest = Manifest(
        target=request.target,
        name=request.name,
        key=key,
        task=run.task,
        run=_trained(run),
        lineage=without_places(run.lineage),
        quantization=selected.compressed.record,
        repair=selected.repair.untimed() if selected.repair else None,
        parity=read_json(candidates.floating / "parity.json"),
        versions=versions("torch", "onnx", "onnxruntime", "openvino", "nncf", "ai_edge_litert"),
        exported=sources["exported"],
        source=sources["source"],
        request=request.asked,
        head=head.told if head else None,
    )
    simulated = request.target.executes_on_host() == "simulated"
    write_golden(folder, run, artifacts["deployed"], simulated=simulated)
    write_kit(folder, _subject(manifest, run, artifacts["deployed"]))
    write_manifest(folder, manifest, artifacts)
    if selected.repair and selected.repair.needed:
        load_bundle(folder).write_record(REPAIR, to_json(selected.repair))


def _subject(manifest: Manifest, run: Run, deployed: Artifact) -> Subject:
    return Subject(
        name=manifest.name,
        target=manifest.target,
        task=run.task,
        classes=run.classes,
        definition=input_of(run),
        backend=deployed.backend,
        precision=deployed.precision,
        versions=manifest.versions,
    )


def _trained(run: Run) -> TrainedRun:
    return TrainedRun(
        digest=run.digest,
        weights_sha256=run.weights_sha256,
        backbone=run.backbone,
        strategy=run.strategy,
        settings=without_places(run.settings),
        metrics=to_json(run.metrics),
        input=input_of(run).to_json(),
        classes=run.classes,
        adoption=run.adoption,
        adaptation=run.adaptation,
    )


def _compiled(
    folder: Path, request: Request, compressed: Compressed, twin: Compressed, progress: Progress
) -> dict[str, Any]:
    compiler = BACKENDS[request.target.backend]
    progress(f"compiling for {request.name}", 0, 1)
    deployed = compiler.compile(compressed.model, request.target, folder / "model")
    same = compressed.model == twin.model
    made = {"deployed": deployed, "float": deployed if same else _twin(compiler, twin, request.target, folder)}
    progress(f"compiling for {request.name}", 1, 1)
    return made


def _twin(compiler: Any, twin: Compressed, target: Target, folder: Path) -> Any:
    return compiler.compile(twin.model, target, folder / "float")


def _sources(folder: Path, floating: Path, compressed: Compressed) -> dict[str, str]:
    """Where the bundle keeps the float ONNX files that certificates trace losses to, copied unless they are there."""
    there = {sha256_file(file): file for file in sorted(folder.rglob("*.onnx"))}
    wanted = {"exported": (floating / MODEL, EXPORTED), "source": (compressed.source, SOURCE)}
    found = {}
    for name, (file, place) in wanted.items():
        digest = sha256_file(file)
        if digest not in there:
            there[digest] = folder / place
            there[digest].parent.mkdir(exist_ok=True)
            there[digest].write_bytes(file.read_bytes())
        found[name] = there[digest].relative_to(folder).as_posix()
    return found
