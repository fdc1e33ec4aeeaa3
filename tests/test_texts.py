"""Sentences of different lengths through everything that takes several of them together."""

from __future__ import annotations

import pytest

from edgetl import check
from edgetl.base.progress import silent
from edgetl.compress.graph import kind_of, load
from edgetl.compress.recipes import recipe_for
from edgetl.compress.repair import TRAINED, Attempt
from edgetl.core.run import Run
from edgetl.core.targets import find_target
from edgetl.pipeline import export
from edgetl.transfer.finetune import finetune
from edgetl.workflow.candidates import Candidates
from edgetl.workflow.exported import Exported
from edgetl.workflow.reference import EXPORTED, TorchReference, exported
from edgetl.workflow.repair_search import ranked
from tests.reviews import write_reviews

pytest.importorskip("tokenizers", reason="the extra text is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A linear probe on 72 sentences of three lengths."""
    folder = tmp_path_factory.mktemp("texts")
    return finetune(write_reviews(folder / "reviews.csv"), folder / "run", strategy="linear-probe", accelerator="cpu")


@pytest.fixture(scope="module")
def made(run: Run) -> Exported:
    (done,) = export(run, targets="x86-generic", out=run.path.parent / "out", repair=False, bench=False)
    return done


def test_sentences_are_certified_in_int8(made: Exported) -> None:
    certificate = made.certificate
    assert (certificate.task, certificate.precision, certificate.executed) == ("text-classification", "int8", "host")
    assert certificate.deployed_score >= certificate.reference_score - 0.1
    assert "image" not in certificate.sentence()
    assert check(made.bundle.path) is None


def test_layers_are_ranked_for_mixed_precision_on_sentences_of_several_lengths(run: Run, made: Exported) -> None:
    target, work = find_target("x86-generic"), run.path.parent / "work"
    reference = TorchReference(run)
    floating = exported(reference, None, work, silent)
    recipe = recipe_for(target.backend, target.isa, "int8", kind_of(load(floating / EXPORTED)))
    candidates = Candidates(reference, target, floating, work, silent)
    assert len({len(reference.run.dataset.paths("search")), 0}) == 2
    best = Attempt("default", "int8", recipe, TRAINED)
    groups = ranked(candidates, best)
    assert groups
    smaller = candidates.compressed(Attempt("less", "int8", best.recipe, TRAINED))
    names = {node.name for node in load(smaller.source).graph.node}
    assert {node for group in groups for node in group.nodes} <= names
