"""Verdicts from disagreements alone: their bounds against scipy, and that no label left out can overturn them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from edgetl.base.errors import CertifyError
from edgetl.certify import PairedCounts, noninferiority
from edgetl.certify.agreement import agreement_test, rate_upper_bound
from edgetl.certify.unlabelled import Unlabelled, comparable
from edgetl.core.agreement import Agreement
from edgetl.tasks import TASKS, find_task
from edgetl.workflow.label_file import read_label_file, write_label_file

MARGINS = (0.01, 0.05)


@settings(max_examples=12)
@given(st.integers(1, 2_000), st.floats(0, 1), st.sampled_from((0.01, 0.05, 0.1)))
def test_the_bound_of_the_rate_is_clopper_and_pearsons(n: int, share: float, alpha: float) -> None:
    seen = min(int(share * n), n)
    exact = 1.0 if seen == n else float(beta.ppf(1 - alpha, seen + 1, n - seen))
    assert rate_upper_bound(seen, n, alpha) == pytest.approx(exact, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("margin", MARGINS)
def test_a_rate_of_disagreement_below_the_margin_passes_without_a_label_and_a_loss_of_it_hardly_ever(
    margin: float,
) -> None:
    for n in (59, 300):
        seen = beta_edge(n, margin)
        verdicts = [agreement_test(n, k, margin=margin).verdict for k in range(max(seen - 1, 0), seen + 1) if k < n]
        passing = [k for k in range(max(seen - 1, 0), seen) if rate_upper_bound(k, n, 0.05) < margin]
        assert verdicts[: len(passing)] == ["pass"] * len(passing)
        # All that differ are lost, so that the true loss is the rate of disagreement: the margin.
        passes = seen + (verdicts[-1] == "pass")
        assert agreement_test(n, passes, margin=margin).verdict != "pass"
        assert binom.cdf(passes - 1, n, margin) <= 0.05


def beta_edge(n: int, margin: float) -> int:
    """The fewest disagreements of ``n`` whose exact upper bound, by scipy, is not below the margin."""
    return next(seen for seen in range(n) if beta.ppf(0.95, seen + 1, n - seen) >= margin)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """n, disagreed, lost, gained, labelled."""
    n = draw(st.integers(20, 200))
    disagreed = draw(st.integers(0, min(n, 3)))
    labelled = draw(st.integers(0, disagreed))
    lost = draw(st.integers(0, labelled))
    return n, disagreed, lost, draw(st.integers(0, labelled - lost)), labelled


@settings(max_examples=8)
@given(tables(), st.sampled_from((0.01, 0.03, 0.1)))
def test_a_verdict_from_some_labels_is_that_of_all_labels_whatever_the_others_are(
    table: tuple[int, int, int, int, int], margin: float
) -> None:
    n, disagreed, lost, gained, labelled = table
    early = agreement_test(*table, margin=margin)
    missing = disagreed - labelled
    for more_lost in range(missing + 1):
        for more_gained in range(missing - more_lost + 1):
            counts = PairedCounts(
                n - lost - more_lost - gained - more_gained, lost + more_lost, gained + more_gained, 0
            )
            whole = noninferiority(counts, margin)
            assert early.verdict in ("underpowered", whole.verdict)
            assert early.ci_low <= whole.ci_low <= whole.ci_high <= early.ci_high
    if not missing:
        whole = noninferiority(PairedCounts(n - lost - gained, lost, gained, 0), margin)
        assert (early.verdict, early.difference, early.p_value) == (whole.verdict, whole.difference, whole.p_value)
        assert early.n_needed == whole.n_needed
    else:
        assert early.difference is None


@pytest.mark.parametrize(
    "table", [(10, 11, 0, 0, 0), (10, 5, 3, 3, 5), (10, 5, 1, 0, 0), (0, 0, 0, 0, 0), (9, 3, -1, 0, 2)]
)
def test_counts_that_do_not_add_up_are_refused(table: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(CertifyError, match="do not add up"):
        agreement_test(*table, margin=0.01)


def test_a_margin_of_nothing_asks_for_a_gain_that_disagreement_alone_cannot_show() -> None:
    assert agreement_test(10_000, 0, margin=0.0).verdict == "underpowered"
    assert agreement_test(100, 40, 0, 40, 40, margin=0.0).verdict == "pass"
    assert agreement_test(100, 40, margin=0.0).n_needed is None


def test_only_metrics_of_right_answers_can_do_without_labels() -> None:
    assert comparable(find_task("classification"), None) == "accuracy"
    assert comparable(find_task("text-classification"), "Accuracy") == "accuracy"
    assert comparable(find_task("multi-label"), None) == "subset-accuracy"
    with pytest.raises(CertifyError, match=r"regression: two numbers are hardly ever equal.*--data"):
        comparable(find_task("regression"), None)
    for task, metric in (
        ("classification", "balanced-accuracy"),
        ("multi-label", "micro-F1"),
        ("multi-label", "macro-AP"),
    ):
        with pytest.raises(CertifyError, match="takes the labels of all samples"):
            comparable(find_task(task), metric)
    assert {name for name, task in TASKS.items() if task.exact is None} == {"regression"}


def compared(task: str, n: int = 60, seed: int = 0) -> Unlabelled:
    """A model and a noisy copy of it over four classes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 4)).astype(np.float32)
    noisy = logits + rng.normal(0, 0.7, logits.shape).astype(np.float32)
    files = [(f"{place:02d}.png", f"{place:064x}") for place in range(n)]
    pair = ({"logits": logits}, {"logits": noisy})
    return Unlabelled.of(find_task(task), tuple("abcd"), files, pair, "reference", {"seen": 3})


@pytest.mark.parametrize("task", ["classification", "multi-label"])
def test_labels_go_to_a_file_and_back_and_answers_to_an_archive(task: str, tmp_path: Path) -> None:
    found, folder = compared(task), tmp_path
    differ = np.flatnonzero(~found.agreed).tolist()
    some = {row: found.deployed[row] for row in differ[::2]}
    labelled = found.labelled(some)
    write_label_file(folder / "to_label.csv", labelled, differ)
    read = read_label_file(folder / "to_label.csv", found)
    assert {row: np.asarray(label).tolist() for row, label in read.items()} == {
        row: np.asarray(label).tolist() for row, label in some.items()
    }
    labelled.save(folder / "agreement.npz")
    first = (folder / "agreement.npz").read_bytes()
    back = Unlabelled.load(folder / "agreement.npz")
    assert back.tested(0.01, 0.05, 0) == labelled.tested(0.01, 0.05, 0)
    assert back.left_out == {"seen": 3, "copies": 0, "unusable": 0}
    back.save(folder / "agreement.npz")
    assert (folder / "agreement.npz").read_bytes() == first
    test, agreement = labelled.tested(0.5, 0.05, 7)
    counts = (agreement.disagreed, agreement.labelled, agreement.gained, agreement.rests_on)
    assert counts == (len(differ), len(some), len(some), 7)
    assert test.verdict == "pass"


def test_the_order_puts_first_what_decides_soonest() -> None:
    found = compared("classification")
    rows = np.flatnonzero(~found.agreed)
    chance = found.loss - found.gain
    # What is expected to pass is decided by what is not lost, what is expected to fail by what is.
    passing, failing = found.asked(0.9, 0.05), found.asked(0.001, 0.05)
    assert sorted(passing) == sorted(failing) == rows.tolist()
    assert all(chance[one] <= chance[other] for one, other in pairwise(passing))
    assert all(chance[one] >= chance[other] for one, other in pairwise(failing))
    # Whoever labels is offered both answers, in the order of the classes, which tells nothing of the models.
    for row in rows:
        assert {found.reference[row], found.deployed[row]} <= set(found.offered[row].tolist())
        assert found.offered[row].tolist() == sorted(found.offered[row].tolist())


def test_a_record_whose_counts_do_not_add_up_is_none() -> None:
    with pytest.raises(ValueError, match="add up"):
        Agreement(disagreed=3, rate_high=0.1, labelled=4, lost=0, gained=0, reference="r")
