"""What the level promises of several tests together, and on what a regression's verdict rests."""

from __future__ import annotations

import numpy as np
import pytest

import edgetl
from edgetl.base.errors import CertifyError
from edgetl.certify import PairedCounts, certify, holm, mcnemar_loss, noninferiority
from edgetl.core.certificate import Certificate

NAMES = ("a", "b", "c", "d")


def flipped(lost: int, gained: int, n: int = 400) -> Certificate:
    """Four classes, over which so many lost and gained samples are spread."""
    labels = np.arange(n) % 4
    reference, deployed = labels.copy(), labels.copy()
    deployed[:lost] = (labels[:lost] + 1) % 4
    reference[lost : lost + gained] = (labels[lost : lost + gained] + 1) % 4
    return certify(reference, deployed, labels, NAMES)


def test_a_loss_fails_by_half_of_the_level_where_a_class_may_fail_too() -> None:
    """9 lost and 2 gained happen by chance in 3.3 % of the cases: alone that is a fail, beside classes it is none."""
    assert 0.025 < float(mcnemar_loss(9, 2)) < 0.05
    assert noninferiority(PairedCounts(389, 9, 2, 0)).verdict == "fail"
    assert flipped(9, 2).verdict == "underpowered"
    assert float(mcnemar_loss(11, 2)) < 0.025
    assert flipped(11, 2).verdict == "fail"


def test_a_model_that_lost_nothing_fails_in_5_percent_at_most() -> None:
    rng, sets, sizes = np.random.default_rng(0), 2000, np.full(10, 500)
    flips = rng.binomial(sizes, 0.2, (sets, 10))
    lost = rng.binomial(flips, 0.5)
    net = flips - 2 * lost
    adjusted = np.stack([holm(row) for row in mcnemar_loss(lost, flips - lost)])
    every = lost.sum(axis=1), (flips - lost).sum(axis=1)
    rates = {}
    for level in (0.05, 0.025):
        whole = (mcnemar_loss(*every) < level) & (net.sum(axis=1) <= -0.01 * sizes.sum())
        collapsed = np.any((adjusted < level) & (net <= -0.01 * sizes), axis=1)
        rates[level] = np.mean(whole | collapsed)
    assert rates[0.025] <= 0.05 < rates[0.05]


def test_several_tasks_share_the_level() -> None:
    from edgetl.certify import certify_answers
    from edgetl.core.data.several import CLASS_OF
    from edgetl.tasks import find_task

    task = find_task("colour:classification+shape:classification")
    labels = np.stack([np.arange(400) % 2, np.arange(400) // 2 % 2], axis=1).astype(float)
    kept = {f"{name}.class": labels[:, i].astype(int) for i, name in enumerate(("colour", "shape"))}
    moved = kept["colour.class"].copy()
    moved[:12] = 1 - moved[:12]
    moved_back = kept["colour.class"].copy()
    moved_back[12:15] = 1 - moved_back[12:15]
    models = {"reference": {**kept, "colour.class": moved_back}, "deployed": {**kept, "colour.class": moved}}
    assert 0.0125 < float(mcnemar_loss(12, 3)) < 0.025
    names = [f"{task_name}{CLASS_OF}{c}" for task_name in ("colour", "shape") for c in "xy"]
    found = certify_answers(task, labels, models, names)
    assert found.parts["colour"].verdict == "underpowered"


# --- regression


def test_a_range_of_values_takes_the_place_of_what_is_assumed() -> None:
    rng = np.random.default_rng(1)
    labels = np.clip(rng.normal(size=2000), -3, 3)
    reference = np.clip(labels + 0.1 * rng.normal(size=2000), -3, 3)
    deployed = np.clip(reference + 0.01 * rng.normal(size=2000), -3, 3)
    arrays = {"reference": reference, "deployed": deployed, "labels": labels, "margin": 0.05}
    for metric in ("mae", "rmse", "r2"):
        free = edgetl.verify(**arrays, metric=metric)
        bound = edgetl.verify(**arrays, metric=metric, value_range=(-3, 3))
        assert any("conditional" in note for note in free.notes)
        assert not any("conditional" in note for note in bound.notes)
        assert bound.ci_low < free.ci_low
        assert bound.value_range == (-3, 3)
        assert Certificate.from_json(bound.to_json()) == bound
        assert "value_range" not in free.to_json()


@pytest.mark.parametrize(
    ("value_range", "message"),
    [((-1.0, 1.0), "labels holds .* which is not in the range of -1 to 1"), ((2.0, 2.0), "2 to 2 is no range")],
)
def test_values_outside_their_range_are_refused(value_range: tuple[float, float], message: str) -> None:
    values = np.linspace(-2, 2, 50)
    with pytest.raises(CertifyError, match=message):
        edgetl.verify(reference=values, deployed=values, labels=values, metric="mae", value_range=value_range)


def test_classes_have_no_range() -> None:
    labels = np.arange(40) % 2
    with pytest.raises(CertifyError, match="classification have no range of values"):
        edgetl.verify(reference=labels, deployed=labels, labels=labels, value_range=(0, 1))
