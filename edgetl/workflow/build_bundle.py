"""From a Run to a Bundle: export, compress, repair where needed, compile, golden vectors, seal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from edgetl.backends import BACKENDS
from edgetl.base.errors import BackendError, BundleError, CompressionError, DataError, EdgetlError
from edgetl.base.progress import Progress
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import new_folder, read_json, sha256_file, sha256_json, write_json
from edgetl.compress.graph import kind_of, load
from edgetl.compress.recipes import Recipe, family, serving
from edgetl.core.bundle import (
    CALIBRATION,
    EXPORTED,
    LABELS,
    LAYERS,
    MANIFEST,
    PRECISIONS,
    REFERENCE,
    REPAIR,
    SOURCE,
    SPLITS_FILE,
    Bundle,
    Precision,
    load_bundle,
    write_manifest,
)
from edgetl.core.compression import Calibration
from edgetl.core.manifest import Manifest, TrainedRun
from edgetl.core.run import Run
from edgetl.core.targets import Target, find_target
from edgetl.inputs import input_of, write_input
from edgetl.workflow.candidates import Candidates, Compressed
from edgetl.workflow.golden_vectors import write_golden
from edgetl.workflow.network_reference import reference_of
from edgetl.workflow.portable import calibrated_on, for_certifying, note_data, samples_home, without_places
from edgetl.workflow.reference import EXPORTED as MODEL
from edgetl.workflow.reference import Answers, answers, exported
from edgetl.workflow.repair_search import Selected, search_repair
from edgetl.workflow.stage_cache import versions

#: Minutes that repairing one bundle may take, unless told otherwise.
#: Of a graph's fixed batch.
MOST_SAMPLES = 4096
REPAIR_MINUTES = 10.0


@dataclass(frozen=True)
class Request:
    """One bundle to make.

    Attributes:
        run: what was trained.
        name: of the bundle's folder: the target as the user named it.
        target, precision: what it is made for.
        selection, size: override the recipe's choice of calibration images.
        batch: fixed batch size of the graph, or None.
        margin: greatest tolerable loss: what repair aims at.
        minutes: that repair may take; 0 to deploy the recipe's outcome whatever it is.
    """

    run: Run
    name: str
    target: Target
    precision: Precision
    selection: str | None = None
    size: int | None = None
    batch: int | None = None
    margin: float = 0.01
    minutes: float = 0.0

    @property
    def changes(self) -> dict[str, Any]:
        """The settings of a recipe that it overrides."""
        given = {"selection": self.selection, "size": self.size}
        return {name: value for name, value in given.items() if value is not None}

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """The target's recipe and its siblings for other kinds of model, changed; none for a float precision."""
        return family(self.target.recipe(self.precision), self.changes)

    @property
    def asked(self) -> dict[str, Any]:
        """What of it another export needs to give the same bundle, apart from run and target."""
        repair = {"margin": self.margin, "minutes": self.minutes} if self.recipes else {}
        batch = {} if self.batch is None else {"batch": self.batch}
        return {"precision": self.precision, **self.changes, **batch, **repair}

    def recipe(self, floating: Path) -> Recipe | None:
        """The one that serves the kind of model in a float ONNX file; None for a float precision.

        Raises:
            CompressionError: there is none, or it calibrates nothing and is to do it otherwise.
        """
        if not self.recipes:
            return None
        chosen = serving(self.recipes, kind_of(load(floating)))
        if self.changes and not chosen.calibrates:
            raise CompressionError(f"the recipe {chosen.name} calibrates nothing", "leave out what chooses samples")
        return chosen

    def key(self) -> str:
        """SHA-256 over everything that the bundle's content depends on."""
        repair = {"margin": self.margin, "minutes": self.minutes} if self.recipes and self.minutes else None
        return sha256_json(
            {
                "run": self.run.digest,
                "baseline": to_json(self.run.baseline),
                "target": self.target.to_json(),
                "precision": self.precision,
                "recipes": [recipe.to_json() for recipe in self.recipes],
                "changes": self.changes,
                "repair": repair,
                "batch": self.batch,
                "versions": versions(
                    "torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt_rtx", "tensorrt", "ai_edge_litert"
                ),
            }
        )


def build_bundle(request: Request, out: Path, work: Path, progress: Progress) -> Bundle:
    """The finished bundle ``out/NAME``, made if it is not there yet, damaged, or made from something else."""
    folder, key = out / request.name, request.key()
    try:
        there = load_bundle(folder)
        if there.manifest.key == key:
            note_data(out, there.splits, samples_home(request.run.dataset))
            return there
    except BundleError as error:
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise EdgetlError(f"{folder} exists and is no bundle", "choose another --out, or remove it") from error
    _refuse_absent(request.run)
    reference = reference_of(request.run)
    floating = exported(reference, request.batch, work, progress)
    expected = answers(reference, floating, work, progress)
    recipe = request.recipe(floating / MODEL)
    candidates = Candidates(reference, request.target, floating, work, progress, request.batch)
    selected = search_repair(candidates, request.precision, recipe, expected.search, request.margin, request.minutes)
    twin = candidates.in_float(_widest(request))
    with new_folder(folder) as partial:
        _fill(partial, request, key, candidates, expected, selected, twin)
    made = load_bundle(folder)
    note_data(out, made.splits, samples_home(request.run.dataset))
    return made


def _refuse_absent(run: Run) -> None:
    """What is not there now must not be found missing after minutes of work."""
    absent = [sample.path for sample in run.dataset.samples if not run.dataset.file(sample).is_file()]
    if absent:
        what = f"{len(absent)} of {len(run.dataset.samples)} samples of {run.path} are not in {run.dataset.root}"
        raise DataError(f"{what} (first: {absent[0]})", "say where they are now: --data FOLDER")


def precision_for(target: Target, wanted: str | None) -> Precision:
    """The precision that is wanted, or the target's own.

    Raises:
        BackendError: the target cannot take it; those that it can are named.
    """
    precision = cast(Precision, wanted or target.default_precision)
    backend = BACKENDS[target.backend]
    reason = backend.refuses(target, precision)
    if reason:
        makeable = [p for p in PRECISIONS if backend.refuses(target, p) is None]
        raise BackendError(f"{target.name} cannot take {precision}: {reason}", f"use {' or '.join(makeable)}")
    return precision


def check_batch(batch: int | None) -> None:
    """Refuse a fixed batch size that no graph has.

    Raises:
        EdgetlError: it is none.
    """
    if batch is not None and not 1 <= batch <= MOST_SAMPLES:
        raise EdgetlError(f"a batch of {batch} is impossible", f"give 1 to {MOST_SAMPLES}, or leave it out for any")


def minutes_for(budget: float, repair: bool) -> float:
    """Minutes that repair may take: those of the budget, or none.

    Raises:
        EdgetlError: the budget is no time.
    """
    if not 0 < budget < float("inf"):
        raise EdgetlError(f"a budget of {budget} minutes is no time", "give a positive number, or --no-repair")
    return budget if repair else 0.0


def requests_for(
    run: Run,
    targets: Sequence[str],
    precision: str | None,
    *,
    selection: str | None,
    size: int | None,
    batch: int | None,
    margin: float,
    minutes: float,
) -> list[Request]:
    """A request for each target that is named, once; see :class:`Request`.

    Raises:
        UnknownNameError: there is no such target.
        BackendError: one of them cannot take the precision.
        EdgetlError: a batch that no graph has.
    """
    check_batch(batch)
    return [
        Request(run, name, target, precision_for(target, precision), selection, size, batch, margin, minutes)
        for name in dict.fromkeys(targets)
        for target in [find_target(name)]
    ]


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
    selected: Selected,
    twin: Compressed,
) -> None:
    run = request.run
    artifacts = _compiled(folder, request, selected.compressed, twin, candidates.progress)
    write_json(folder / LABELS, list(run.classes))
    write_input(folder, input_of(run))
    write_json(folder / SPLITS_FILE, for_certifying(run.dataset).to_json())
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
    )
    simulated = request.target.executes_on_host() == "simulated"
    write_golden(folder, run, artifacts["deployed"], simulated=simulated)
    write_manifest(folder, manifest, artifacts)
    if selected.repair and selected.repair.needed:
        load_bundle(folder).write_record(REPAIR, to_json(selected.repair))


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
    )


def _compiled(
    folder: Path, request: Request, compressed: Compressed, twin: Compressed, progress: Progress
) -> dict[str, Any]:
    compiler = BACKENDS[request.target.backend]
    progress(f"compiling for {request.name}", 0, 1)
    deployed = compiler.compile(compressed.model, request.target, folder / "model")
    # A float model is its own yardstick; a second copy of it would only be timed against itself.
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
