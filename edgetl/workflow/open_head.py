"""A head of class means, left open in the artifact: its rows are made of what the compressed backbone itself gives.

Means of the float backbone's features lie beside those that a device computes for the pictures of a further class; so
the rows of the certified classes come from the compressed backbone, too, before anything is certified.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import read_json, sha256_file, write_bytes, write_json
from edgetl.compress.head import find_head, with_head
from edgetl.compress.layers.topology import read_topology
from edgetl.compress.open_head import open_head
from edgetl.compress.recipes import Recipe
from edgetl.core.bundle import CALIBRATION, HEAD
from edgetl.core.head_file import BaseHead, base_content
from edgetl.core.manifest import OpenHead
from edgetl.core.run import Run
from edgetl.core.target import Target
from edgetl.tasks import find_task
from edgetl.transfer.strategies import STRATEGIES, find
from edgetl.transfer.strategies.base import HeadSpec
from edgetl.workflow.candidates import SOURCE, Candidates, Compressed
from edgetl.workflow.reference import EXPORTED
from edgetl.workflow.refit_head import features_of, parts_of
from edgetl.workflow.stage_cache import stage, versions

#: Runtimes that take a head's weights as inputs. A TFLite file has them of a fixed size among its operators' own, and
#: an engine of TensorRT is built for one.
OPENING = ("onnxruntime", "openvino")
_RECORD = "opened.json"


def spec_of(run: Run, target: Target) -> HeadSpec | None:
    """The head that a run's artifact for a target has, where it stands open; None where it is fixed."""
    if run.strategy not in STRATEGIES or target.backend not in OPENING:
        return None
    spec = find(run.strategy, run.settings.get("options", {})).head
    return None if spec.kind == "linear" else spec


def in_float(recipe: Recipe, floating: Path) -> Recipe:
    """The recipe, with the head left in float: 8 bits of rows that are fed would be another's."""
    head = find_head(read_topology(floating / EXPORTED)).node
    return replace(recipe, exclude_nodes=tuple(dict.fromkeys((*recipe.exclude_nodes, head))))


@dataclass(frozen=True)
class Opened:
    """A model with rows of its own features, which stand open.

    Attributes:
        compressed: the model.
        told: what the manifest says of them.
        file: that holds them.
    """

    compressed: Compressed
    told: OpenHead
    file: Path


def opened(candidates: Candidates, compressed: Compressed, spec: HeadSpec) -> Opened:
    """The model with an open head.

    Args:
        candidates: the run and the target.
        compressed: whose head is in float.
        spec: of the head.

    Raises:
        CompressionError: the model has no linear head in float, or there are no samples to fit it on.
        DataError: a class has no training sample.
    """

    def build(folder: Path) -> None:
        _build(candidates, compressed, spec, folder)

    inputs = {
        "compressed": compressed.folder.name,
        "head": [spec.kind, spec.shrinkage],
        "run": candidates.run.digest,
        "simulated": candidates.simulated,
        "versions": versions("onnx", "onnxruntime", "openvino", "sklearn"),
    }
    folder = stage(candidates.work, "opened", inputs, build)
    done = read_json(folder / _RECORD)
    record = replace(compressed.record, source_sha256=sha256_file(folder / SOURCE))
    made = Compressed(folder, folder / done["file"], folder / SOURCE, record)
    return Opened(made, from_json(OpenHead, done["head"], folder / _RECORD), folder / HEAD)


def _build(candidates: Candidates, compressed: Compressed, spec: HeadSpec, folder: Path) -> None:
    from edgetl.transfer import class_means
    from edgetl.transfer.tasks import learner_of

    run, parts = candidates.run, parts_of(candidates)
    learner = learner_of(find_task(run.task), run.classes)
    labels = [run.dataset.labels_of(part) for part in parts]
    seen = [features_of(candidates, compressed, part) for part in parts]
    train, val = ((x, learner.targets(y, learner.scale(y))) for x, y in zip(seen, labels, strict=True))
    candidates.progress("means of the classes", 0, 0)
    found = class_means.fit(spec.kind, train, val, len(run.classes), spec.shrinkage)
    head, ir = found.head, candidates.target.backend == "openvino"
    made = open_head(compressed.model, compressed.source, head.weight, head.bias, folder, ir=ir)
    before = find_head(read_topology(compressed.source))
    with_head(compressed.source, before, head.weight, head.bias, folder / SOURCE)
    write_bytes(folder / HEAD, base_content(BaseHead(head.weight, head.bias, found.rule)))
    shutil.copyfile(compressed.folder / CALIBRATION, folder / CALIBRATION)
    told = OpenHead(spec.kind, HEAD, made.weight, made.bias, made.transposed, head.weight.shape[1])
    write_json(folder / _RECORD, {"file": made.model.name, "head": to_json(told)})
