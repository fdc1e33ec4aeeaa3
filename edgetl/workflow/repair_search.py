"""Mending what compression broke: remedies are tried on search samples until one suffices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetl.backends import BACKENDS
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import read_json, write_json
from edgetl.compress.graph import kind_of, load
from edgetl.compress.layers.profiling import ENGINES, profile_layers
from edgetl.compress.recipes import Recipe
from edgetl.compress.remedies import REMEDIES
from edgetl.compress.repair import Attempt, Means, Reverted, try_remedies
from edgetl.compress.sensitivity import choose, costs, gains
from edgetl.core.bundle import Precision
from edgetl.core.compression import LayerNoise, RepairRecord
from edgetl.core.tensors import Arrays, count, rows
from edgetl.inputs import input_of
from edgetl.tasks import find_task
from edgetl.workflow.candidates import Candidates, Compressed
from edgetl.workflow.reference import EXPORTED
from edgetl.workflow.refit_head import refitted
from edgetl.workflow.stage_cache import stage, versions
from edgetl.workflow.train_quantized import distilled, trained

#: Images that the sensitivity of layers is measured on.
SENSITIVE = 32
#: Groups of layers that mixed precision may choose from.
CANDIDATES = 40


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
    """Compress as asked; where that loses too much on the search split, try remedies.

    Args:
        candidates: the run and the target.
        precision, recipe: what was asked for.
        reference: the trained model's outputs on the search split, (n, …) by name.
        margin: greatest tolerable loss, in the unit of the task's metric.
        minutes: that repair may take; 0 to take the first attempt as it is.
    """
    start = Attempt(f"recipe {recipe.name}" if recipe else precision, precision, recipe)
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
    target, task = candidates.target, find_task(candidates.run.task)
    means = Means(
        kind=kind_of(load(candidates.floating / EXPORTED)),
        available=len(candidates.run.dataset.split("calibration")),
        refuses=lambda precision: BACKENDS[target.backend].refuses(target, precision),
        ranked=lambda best: ranked(candidates, best),
        distilled=lambda best: distilled(candidates, best),
        trained=lambda best: trained(candidates, best),
        refitted=lambda best: refitted(candidates, best),
    )

    def build(folder: Path) -> None:
        done = try_remedies(
            start, REMEDIES, means, lambda attempt: candidates.measure(attempt, reference),
            margin=margin, minutes=minutes, progress=candidates.progress,
        )  # fmt: skip
        broken = done.needed and start.recipe is not None
        layers = candidates.noises(candidates.compressed(start)) if broken else ()
        record = done.record(task.metric, task.metrics[task.metric].unit, layers)
        write_json(folder / "repair.json", {"record": to_json(record), "chosen": _plain(done.chosen)})

    inputs = {
        "start": _plain(start), "remedies": list(REMEDIES), "target": target.to_json(),
        "onnx": candidates.floating.name,
        "run": candidates.run.digest, "margin": margin, "minutes": minutes,
        "versions": versions("torch", "onnx", "onnxruntime", "openvino", "nncf"),
    }  # fmt: skip
    file = stage(candidates.work, "repair", inputs, build) / "repair.json"
    kept = read_json(file)
    return _attempt(kept["chosen"]), from_json(RepairRecord, kept["record"], file)


def ranked(candidates: Candidates, best: Attempt) -> list[Reverted]:
    """Groups of layers that may go to float: the most error removed for the least cost first, as measured."""
    compressed = candidates.compressed(best)
    points, samples = candidates.points(compressed), input_of(candidates.run).batch(candidates.spread(SENSITIVE))
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


def _plain(attempt: Attempt) -> dict[str, Any]:
    return {**asdict(attempt), "recipe": attempt.recipe.to_json() if attempt.recipe else None}


def _attempt(record: Mapping[str, Any]) -> Attempt:
    recipe = record["recipe"] and {k: tuple(v) if isinstance(v, list) else v for k, v in record["recipe"].items()}
    return Attempt(**{**record, "recipe": Recipe(**recipe) if recipe else None})
