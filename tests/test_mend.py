"""Repair end to end: a network made hostile to 8 bits fails as the recipe has it, and export mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

import edgetl
from benchmarks.models import hostile_run
from edgetl.base.errors import BundleError
from edgetl.base.schema import to_json
from edgetl.core.bundle import CERTIFICATE, REPAIR, Bundle, load_bundle
from edgetl.core.run import Run, load_run
from edgetl.pipeline import Exported

#: Residual streams of EfficientNet-Lite0 whose channels are rescaled.
STAGES = (2, 4)


@pytest.fixture(scope="module")
def hostile(edgetl: Callable[..., object], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, set[str]]:
    """A linear probe on the embedded digits, rescaled without a change of function, and the layers concerned."""
    folder = tmp_path_factory.mktemp("hostile")
    options = ("--strategy", "linear-probe", "--image-size", 64, "--quiet")
    done = edgetl("finetune", "digits", "--out", folder / "run", *options)
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    return hostile_run(load_run(folder / "run"), folder / "hostile", STAGES)


@pytest.fixture(scope="module")
def plain(hostile: tuple[Run, set[str]]) -> Exported:
    """What the recipe makes of it."""
    run = hostile[0]
    (done,) = edgetl.export(run, targets=["x86-generic"], out=run.path.parent / "plain", repair=False, bench=False)
    return done


@pytest.fixture(scope="module")
def mended(hostile: tuple[Run, set[str]]) -> Exported:
    """What export makes of it."""
    run = hostile[0]
    (done,) = edgetl.export(run, targets=["x86-generic"], out=run.path.parent / "mended", bench=False)
    return done


def share_of(named: Sequence[str], touched: set[str]) -> float:
    """How many of the named layers were rescaled."""
    return sum(name.removeprefix("backbone.") in touched for name in named) / len(named)


def test_the_recipe_alone_loses_it_and_the_certificate_says_where(
    plain: Exported, hostile: tuple[Run, set[str]]
) -> None:
    certificate = plain.certificate
    assert certificate.verdict == "fail"
    assert certificate.difference < -0.1
    assert certificate.first_divergence == "Q/DQ in float"
    (noise,) = (finding for finding in certificate.findings if finding.kind == "quantization-noise")
    assert share_of(noise.layers, hostile[1]) >= 0.8
    assert plain.bundle.manifest.repair is None


def test_export_mends_it_and_it_still_computes_in_integers(mended: Exported) -> None:
    certificate = mended.certificate
    assert certificate.verdict != "fail"
    assert certificate.difference > -0.01
    assert certificate.precision == "int8"
    repair = mended.bundle.manifest.repair
    assert repair is not None
    assert repair.best is not None
    assert (repair.trials[0].difference or 0) < -0.1
    assert (repair.best.integer_macs or 0) >= 0.9


def test_what_was_tried_is_in_the_bundle_with_its_times(mended: Exported) -> None:
    bundle: Bundle = mended.bundle
    told, timed = bundle.manifest.repair, bundle.repair
    assert told is not None
    assert timed is not None
    assert told.needed
    assert told.survived
    assert timed.untimed() == told
    assert all(trial.ms is None for trial in told.trials)
    assert any(trial.ms for trial in timed.trials)
    assert json.loads((bundle.path / CERTIFICATE).read_text())["repair"] == to_json(told)
    assert told.trials[0].remedy == "default"
    assert told.chosen == told.trials[-1].remedy


def test_the_repair_changed_what_was_quantized_and_kept_the_trained_graph(mended: Exported) -> None:
    """Equalization scales the weights: both graphs are kept, so that layers can be traced and channels compared."""
    bundle = load_bundle(mended.bundle.path)
    assert bundle.manifest.quantization is not None
    assert bundle.manifest.quantization.recipe is not None
    assert bundle.manifest.quantization.recipe["equalize"]
    assert bundle.source != bundle.exported
    assert not [f for f in mended.certificate.findings if f.kind == "dead-channel"]


def test_the_same_export_again_climbs_no_more(hostile: tuple[Run, set[str]], mended: Exported) -> None:
    told: list[str] = []
    (again,) = edgetl.export(
        hostile[0],
        targets=["x86-generic"],
        out=mended.bundle.path.parent,
        bench=False,
        progress=lambda task, done, total, detail="": told.append(task),
    )
    assert again.bundle.digest == mended.bundle.digest
    assert not told


def test_an_edited_record_of_the_repair_is_refused(mended: Exported) -> None:
    file = mended.bundle.path / REPAIR
    before = file.read_bytes()
    try:
        file.write_bytes(before.replace(b'"kept": true', b'"kept": false', 1))
        with pytest.raises(BundleError, match="altered"):
            mended.bundle.record(REPAIR)
    finally:
        file.write_bytes(before)
