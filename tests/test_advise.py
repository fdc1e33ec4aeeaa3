"""Ten made-up situations, the right answer to each with the argument for it; and the command on real samples."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.certify import images_needed
from edgetl.workflow.advise import DISAGREEMENT, MARGIN, Advice, Candidate, Situation, advised

Cli = Callable[..., subprocess.CompletedProcess[str]]
LITE = Candidate("lite", 0.85, 0.82, 0.88, True, 3_400_000)
HEAVY = Candidate("heavy", 0.86, 0.83, 0.89, True, 6_000_000)
USUAL = Situation(
    data="photos",
    kind="image",
    task="classification",
    samples=800,
    certify=3000,
    classes={"crack": 300, "fine": 500},
    candidates=(HEAVY, LITE),
)


def said(advice: Advice) -> str:
    return " | ".join(f"{r.says} ({r.rests_on})" for r in (*advice.reasons, *advice.warnings))


def test_enough_of_each_class_is_fine_tuned_on_the_lightest_of_equals() -> None:
    """Hundreds a class move features; what differs by chance alone is decided by what the device pays."""
    found = advised(USUAL)
    assert (found.backbone, found.strategy, found.warnings) == ("lite", "fine-tune", ())
    assert found.commands[0] == "edgetl finetune photos --out run --backbone lite --baseline probe"
    assert "no better beyond chance are heavy" in said(found)


def test_a_leader_beyond_chance_is_worth_its_weight() -> None:
    """Nobody asked for speed: accuracy that is there is taken."""
    found = advised(replace(USUAL, candidates=(HEAVY, replace(LITE, best=False))))
    assert (found.backbone, "leads beyond chance" in said(found)) == ("heavy", True)


def test_few_of_a_class_fit_a_head_alone() -> None:
    """Twelve photographs tell 2,560 weights something, and three million nothing (Kumar et al. 2022)."""
    found = advised(replace(USUAL, samples=36, classes={"a": 12, "b": 24}))
    assert found.strategy == "linear-probe"
    assert "12 samples in the smallest class" in said(found)


def test_a_class_of_two_is_not_learned() -> None:
    """Nothing of it would be left to certify on: say which, and stop."""
    found = advised(replace(USUAL, classes={"crack": 2, "fine": 500}))
    assert (found.strategy, found.commands) == ("", ())
    assert "label more of 'crack'" in said(found)


def test_what_is_solved_is_left_alone() -> None:
    """A probe at 99 % leaves less to gain than any certificate of thousands could show."""
    easy = Candidate("lite", 0.998, 0.993, 1.0, True, 3_400_000)
    found = advised(replace(USUAL, candidates=(easy,)))
    assert (found.strategy, "nothing left to gain" in said(found)) == ("linear-probe", True)


def test_a_budget_decides_before_accuracy() -> None:
    """Forty milliseconds are no answer to a line that moves on after twenty."""
    slow, fast = replace(HEAVY, ms=41.0), replace(LITE, ms=14.0, best=False)
    found = advised(replace(USUAL, candidates=(slow, fast), target="x86-generic", budget_ms=20.0))
    assert found.backbone == "lite"
    assert "the best that fits the budget (14.0 ms on x86-generic)" in said(found)
    assert found.commands[1] == "edgetl export run --target x86-generic --out out"


def test_no_backbone_in_the_budget() -> None:
    """Training something that cannot be used is worse than saying so."""
    slow, fast = replace(HEAVY, ms=41.0), replace(LITE, ms=14.0)
    found = advised(replace(USUAL, candidates=(slow, fast), target="x86-generic", budget_ms=5.0))
    assert (found.commands, found.backbone) == ((), "")
    assert "lite, the fastest, takes 14.0 ms" in said(found)


def test_samples_of_another_place_have_to_be_certified_on() -> None:
    """A certificate speaks of what it was drawn from."""
    far = replace(USUAL, shift=1.7, use="from-the-line")
    assert "label some of from-the-line" in said(advised(far))
    assert "--strategy mmd --target-data from-the-line" in said(advised(far))
    assert "--strategy mmd" not in said(advised(replace(far, use_labelled=True)))
    assert "certify on from-the-line" in said(advised(replace(far, use_labelled=True)))
    assert advised(replace(far, shift=0.2)).warnings == ()


def test_too_few_to_certify_on_is_said_before_training() -> None:
    """Underpowered is known beforehand: the formula of the test tells how many samples it takes."""
    found = advised(replace(USUAL, certify=270))
    (warning,) = found.warnings
    assert f"{images_needed(DISAGREEMENT, MARGIN)} needed" in warning.rests_on
    provable = float(warning.says.split("ask for ")[1].split(" ")[0]) / 100
    assert images_needed(max(DISAGREEMENT, provable), provable) <= 270
    assert images_needed(max(DISAGREEMENT, provable - 0.001), provable - 0.001) > 270


def test_unequal_classes_hide_behind_accuracy() -> None:
    """Thirty of nine hundred may all be lost for three points of accuracy."""
    found = advised(replace(USUAL, classes={"fray": 32, "free": 950}))
    assert "balanced accuracy and at 'fray'" in said(found)


def test_sentences_are_fine_tuned() -> None:
    """Measured: SST-2 gains seven points over a probe of the sentence's vector."""
    found = advised(replace(USUAL, kind="text", task="text-classification", candidates=(replace(LITE, name="minilm"),)))
    assert (found.backbone, found.strategy) == ("minilm", "fine-tune")
    assert "the only one that was compared" in said(found)
    assert "86.5 %" in said(found)


def test_numbers_are_not_shares() -> None:
    """A mean absolute error has no 99 %, and no count of answers that differ."""
    counted = Candidate("lite", 3.1, 2.9, 3.4, True, 3_400_000)
    found = advised(replace(USUAL, classes={}, certify=50, candidates=(counted,), share=False))
    assert (found.strategy, found.warnings) == ("fine-tune", ())
    assert "reaches 3.1 (2.9 to 3.4)" in said(found)


@pytest.mark.parametrize("seed", range(20))
def test_every_situation_has_an_answer_with_what_it_rests_on(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ms = [None, *rng.uniform(1, 50, 3)][rng.integers(4)]
    situation = replace(
        USUAL,
        samples=int(rng.integers(10, 5000)),
        certify=int(rng.integers(0, 4000)),
        classes={str(n): int(rng.integers(1, 900)) for n in range(rng.integers(2, 9))},
        candidates=(replace(HEAVY, ms=ms), replace(LITE, ms=ms, best=bool(rng.integers(2)))),
        target="x86-generic",
        budget_ms=None if ms is None else float(rng.uniform(1, 60)),
        shift=[None, float(rng.uniform(0, 2))][rng.integers(2)],
        use="there",
    )
    found = advised(situation)
    assert found.reasons
    assert all(r.says and r.rests_on for r in (*found.reasons, *found.warnings))
    assert bool(found.commands) == bool(found.strategy)
    assert found == advised(situation)


def test_the_command_on_real_samples(edgetl: Cli, photos: Path) -> None:
    options = ("--image-size", "32", "--accelerator", "cpu", "--backbone", "efficientnet_lite0")
    done = edgetl("advise", photos, *options, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["backbone"] == "efficientnet_lite0"
    assert found["strategy"] in ("linear-probe", "fine-tune")
    assert found["commands"][0].startswith(f"edgetl finetune {photos} --out run")
    shown = edgetl("advise", photos, *options, COLUMNS="200")
    assert (shown.returncode, "why  " in shown.stdout, found["commands"][0] in shown.stdout) == (0, True, True)
    assert edgetl("advise", photos, "--budget-ms", "20").returncode == 2
