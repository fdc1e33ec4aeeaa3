"""The head fitted again, on a real run: other weights are another model, in whatever folder they are exported."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import edgetl
from edgetl.base.errors import CompressionError
from edgetl.base.progress import silent
from edgetl.base.storage import sha256_file
from edgetl.compress.head import features, weights_of
from edgetl.compress.layers.topology import read_topology
from edgetl.compress.recipes import load_recipe
from edgetl.compress.repair import Attempt
from edgetl.core.run import WEIGHTS, load_run
from edgetl.core.targets import find_target
from edgetl.inputs import input_of
from edgetl.workflow.candidates import Candidates, Compressed
from edgetl.workflow.reference import EXPORTED, TorchReference, exported
from edgetl.workflow.refit_head import refitted
from tests.records import put_into_run


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def content(compressed: Compressed) -> str:
    model = compressed.model
    return sha256_file(model.with_suffix(".bin") if model.suffix == ".xml" else model)


@pytest.mark.parametrize(
    ("target", "recipe"),
    [("x86-generic", "ort-x86-int8"), ("intel-cpu", "openvino-int8"), ("jetson-orin-nano", "tensorrt-int8")],
)
def test_the_head_is_fitted_to_what_the_int8_backbone_gives(
    tiny_run: Path, work: Path, target: str, recipe: str
) -> None:
    reference = TorchReference(load_run(tiny_run))
    floating = exported(reference, None, work, silent)
    candidates = Candidates(reference, find_target(target), floating, work, silent)
    start = Attempt("as the recipe has it", "int8", load_recipe(recipe))
    plain = candidates.compressed(start)
    made: dict[str, Compressed] = {}
    # On so few samples the trained head may be as near to its own outputs as any: then it says so.
    with contextlib.suppress(CompressionError):
        for words, weights in refitted(candidates, start):
            made["labels" if "labels" in words else "outputs"] = candidates.compressed(replace(start, source=weights))
    assert list(made) in (["labels"], ["labels", "outputs"])
    assert len({content(one) for one in (plain, *made.values())}) == 1 + len(made)
    samples = [input_of(reference.run).feeds(path) for path in reference.run.dataset.paths("val")]
    seen = features(plain.model, plain.source, samples, simulated=candidates.simulated)
    wanted = reference.outputs("val", silent)["logits"]

    def apart(source: Path) -> float:
        weight, bias = weights_of(read_topology(source))
        return float(np.square(seen @ weight.T + bias - wanted).mean())

    for outputs in (one.source for aim, one in made.items() if aim == "outputs"):
        assert apart(outputs) < apart(floating / EXPORTED), "nearer to the trained model's outputs"


def test_two_runs_in_one_folder_keep_their_models_apart(tiny_run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_run, tmp_path / "other"))
    weights = safetensors.numpy.load_file(other / WEIGHTS)
    turned = {name: -value if name.endswith("classifier.weight") else value for name, value in weights.items()}
    assert any(not np.array_equal(turned[name], weights[name]) for name in weights)
    put_into_run(other, WEIGHTS, safetensors.numpy.save(turned))
    found = []
    for run in (tiny_run, other):
        options = {"targets": ["x86-generic"], "out": tmp_path / "out", "repair": False, "bench": False}
        (done,) = edgetl.export(load_run(run), **options)  # type: ignore[arg-type]
        found.append((sha256_file(done.bundle.artifact().path), done.certificate))
    assert found[0][0] != found[1][0]
    for _, certificate in found:
        assert certificate.probabilities is not None
        assert certificate.probabilities.agreement > 0.8, "each is as its own run trained it"
