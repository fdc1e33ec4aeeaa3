"""Mending what compression broke: the rungs of the repair ladder, tried in a workshop until one suffices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.backends import BACKENDS
from edgetl.base.errors import CompressionError
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import read_json, write_json
from edgetl.compress import remedies, repair
from edgetl.compress.layers.profiling import ENGINES, profile_layers
from edgetl.compress.recipes import Recipe
from edgetl.compress.remedies import Reverted
from edgetl.compress.repair import Attempt
from edgetl.compress.sensitivity import choose, costs, gains
from edgetl.core.bundle import Precision
from edgetl.core.compression import LayerNoise, RepairRecord
from edgetl.core.data.samples import CLASS
from edgetl.core.tensors import Arrays, count, joined, rows
from edgetl.inputs import Preprocess, input_of
from edgetl.workflow.candidates import Candidates, Compressed
from edgetl.workflow.reference import EXPORTED, OPSET
from edgetl.workflow.stage_cache import stage, versions

#: Images that the sensitivity of layers is measured on.
SENSITIVE = 32
#: Groups of layers that mixed precision may choose from.
CANDIDATES = 40
#: Most seconds of distillation.
DISTILLING = 300.0


@dataclass(frozen=True)
class Selected:
    """What is deployed.

    Attributes:
        compressed: the model.
        repair: how it came about, with times; None where nothing was tried but the recipe.
        layers: what quantization does to each layer by itself, the worst first.
    """

    compressed: Compressed
    repair: RepairRecord | None
    layers: tuple[LayerNoise, ...]


def search_repair(
    candidates: Candidates,
    precision: Precision,
    recipe: Recipe | None,
    reference: Arrays,
    margin: float,
    minutes: float,
) -> Selected:
    """Compress as asked; where that loses too much on the search split, climb the repair ladder.

    Args:
        candidates: the run and the target.
        precision, recipe: what was asked for.
        reference: the trained model's outputs on the search split, (n, …) by name.
        margin: greatest tolerable loss.
        minutes: that the climb may take; 0 to take the first attempt as it is.
    """
    start = Attempt("default", f"recipe {recipe.name}" if recipe else precision, precision, recipe)
    if recipe is None:
        return Selected(candidates.compressed(start), None, ())
    chosen, record = start, None
    if minutes and count(reference):
        chosen, record = _repaired(candidates, start, reference, margin, minutes)
    compressed = candidates.compressed(chosen)
    noises = candidates.noises(compressed) if chosen.recipe else ()
    return Selected(compressed, record, noises)


def _repaired(
    candidates: Candidates, start: Attempt, reference: Arrays, margin: float, minutes: float
) -> tuple[Attempt, RepairRecord]:
    available = len(candidates.run.dataset.split("calibration"))
    refused = BACKENDS[candidates.target.backend].refuses(candidates.target, "fp16")
    ladder = [
        *remedies.recipe_rungs(available),
        remedies.mixed_precision(lambda best: ranked(candidates, best)),
        remedies.distillation(lambda best: distilled(candidates, best)),
        remedies.half_precision(refused),
    ]

    def build(folder: Path) -> None:
        done = repair.climb(
            start, ladder, lambda attempt: candidates.measure(attempt, reference),
            margin=margin, minutes=minutes, progress=candidates.progress,
        )  # fmt: skip
        broken = done.needed and start.recipe is not None
        record = done.record(candidates.noises(candidates.compressed(start)) if broken else ())
        write_json(folder / "repair.json", {"record": to_json(record), "chosen": _plain(done.chosen)})

    inputs = {
        "start": _plain(start), "target": candidates.target.to_json(), "onnx": candidates.floating.name,
        "run": candidates.run.digest, "margin": margin, "minutes": minutes,
        **versions("torch", "onnx", "onnxruntime", "openvino", "nncf"),
    }  # fmt: skip
    file = stage(candidates.work, "repair", inputs, build) / "repair.json"
    kept = read_json(file)
    return _attempt(kept["chosen"]), from_json(RepairRecord, kept["record"], file)


def ranked(candidates: Candidates, best: Attempt) -> list[Reverted]:
    """Groups of layers that may go to float: the most error removed for the least cost first, as measured."""
    compressed = candidates.compressed(best)
    points, samples = candidates.points(compressed), joined(candidates.samples(SENSITIVE))
    measured = gains(
        compressed.source, compressed.model, points, candidates.noises(compressed), samples,
        most=CANDIDATES, progress=candidates.progress,
    )  # fmt: skip
    cost = costs(points, *_times(candidates, compressed, rows(samples, slice(1))))
    return [
        Reverted(g.nodes, f"{g.removed / g.error:.0%} of the error at {cost.of(g.nodes):+.3f} {cost.unit}")
        for g in choose(measured, cost)
    ]


def _times(
    candidates: Candidates, compressed: Compressed, sample: Arrays
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Milliseconds of each node in integers and in float; nothing where no runtime here tells."""
    engine = candidates.target.backend
    if candidates.simulated or engine not in ENGINES:
        return {}, {}
    return (
        profile_layers(compressed.model, compressed.source, sample, engine=engine),
        profile_layers(compressed.source, compressed.source, sample, engine=engine),
    )


def distilled(candidates: Candidates, best: Attempt) -> tuple[str, str]:
    """Train the weights for the recipe on training images; what was done, and the stage that holds the outcome."""
    from edgetl.compress.distil import MOST, Training, distil
    from edgetl.compress.export import export_onnx

    run, recipe = candidates.run, best.recipe
    paths = run.dataset.paths("train") or run.dataset.paths("calibration")
    module = candidates.reference.module
    if not isinstance(input_of(run), Preprocess) or run.dataset.label_kind != CLASS:
        raise CompressionError("only classifiers of images are distilled", "try another remedy")
    if recipe is None or not paths or module is None:
        raise CompressionError("there are no images to distil on", "train on images of your own")
    order = np.random.default_rng(run.settings.get("seed", 0)).permutation(len(paths))[:MOST]

    def build(folder: Path) -> None:
        images = (input_of(run).feeds(paths[index])["image"] for index in order)
        how = Training(seconds=DISTILLING)
        done = distil(module, recipe, images, training=how, progress=candidates.progress)
        export_onnx(done.model, input_of(run), folder / EXPORTED, batch=candidates.batch, opset=OPSET)
        write_json(folder / "distilled.json", dict(done.record))

    inputs = {
        "run": run.digest,
        "onnx": candidates.floating.name,
        "recipe": recipe.to_json(),
        **versions("torch", "onnx"),
    }
    folder = stage(candidates.work, "distilled", inputs, build)
    record = read_json(folder / "distilled.json")
    start, end = (record["loss"][name] for name in ("start", "end"))
    return f"{record['steps']} steps of distillation (divergence {start:.3g} → {end:.3g} nats)", folder.name


def _plain(attempt: Attempt) -> dict[str, Any]:
    return {**asdict(attempt), "recipe": attempt.recipe.to_json() if attempt.recipe else None}


def _attempt(record: Mapping[str, Any]) -> Attempt:
    recipe = record["recipe"] and {k: tuple(v) if isinstance(v, list) else v for k, v in record["recipe"].items()}
    return Attempt(**{**record, "recipe": Recipe(**recipe) if recipe else None})
