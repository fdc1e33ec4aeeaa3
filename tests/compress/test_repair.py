"""The climb: which attempts are made, which is kept, when it stops, and what is recorded of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from edgetl.base.errors import CompressionError, EdgetlError
from edgetl.base.schema import to_json
from edgetl.compress.recipes import Recipe, load_recipe, with_changes
from edgetl.compress.remedies import Reverted, distillation, half_precision, mixed_precision, recipe_rungs
from edgetl.compress.repair import Attempt, Judged, Repair, Rung, climb


def judged(loss: float, kl: float, collapsed: tuple[str, ...] = ()) -> Judged:
    lost = round(200 * loss)
    return Judged(200, 0.9 - loss, -loss, -loss, lost, 0, kl, collapsed, 1.0, 2.0)


def start(name: str = "ort-x86-int8") -> Attempt:
    return Attempt("default", "as it is", "int8", load_recipe(name))


def rungs(ranked: Sequence[str] = ("a", "b", "c", "d", "e"), refused: str | None = None) -> list[Rung]:
    return [
        *recipe_rungs(64),
        mixed_precision(lambda best: [Reverted((node,), "little") for node in ranked]),
        distillation(lambda best: ("10 steps", "distilled-1")),
        half_precision(refused),
    ]


def worth(attempt: Attempt) -> float:
    """A made-up world: each remedy takes its part off the divergence, equalization too little, half precision all."""
    if attempt.recipe is None:
        return 0.0
    kl = 1.0
    kl *= 0.75 if attempt.recipe.selection == "k-centre" else 1.0
    kl *= 0.70 if attempt.recipe.estimator == "mse" else 1.0
    kl *= 0.60 if attempt.recipe.bias_correction == "full" else 1.0
    kl *= 0.95 if attempt.recipe.equalize else 1.0
    kl *= 0.75 ** len(attempt.recipe.exclude_nodes)
    return kl


def climbed(threshold: float, minutes: float = 5.0, **options: object) -> Repair:
    def judge(attempt: Attempt) -> Judged:
        kl = worth(attempt)
        return judged(0.0 if kl <= threshold else 0.1, kl)

    return climb(start(), rungs(**options), judge, margin=0.01, minutes=minutes)  # type: ignore[arg-type]


def test_a_good_default_is_left_alone() -> None:
    done = climbed(1.0)
    assert not done.needed
    assert done.survived
    assert [trial.rung for trial in done.trials] == ["default"]
    assert done.chosen == start()


def test_rungs_build_on_what_was_kept_and_stop_at_the_first_that_suffices() -> None:
    done = climbed(0.32)
    assert done.survived
    assert done.chosen.rung == "bias correction"
    kept = [trial for trial in done.trials if trial.kept]
    assert [trial.attempt.change for trial in kept if trial.attempt][-1] == "full bias correction"
    recipe = done.chosen.recipe
    assert recipe is not None
    assert (recipe.selection, recipe.estimator, recipe.bias_correction) == ("k-centre", "mse", "full")
    assert "mixed precision" not in {trial.rung for trial in done.trials}


def test_an_attempt_that_does_not_help_is_not_built_upon() -> None:
    done = climbed(0.32)
    recipe = done.chosen.recipe
    assert recipe is not None
    assert not recipe.equalize
    percentiles = [t for t in done.trials if t.attempt and t.attempt.recipe and t.attempt.recipe.percentile == 99.99]
    assert percentiles
    assert not any(trial.kept for trial in percentiles)


def test_mixed_precision_takes_the_fewest_layers() -> None:
    done = climbed(0.18)
    assert done.chosen.rung == "mixed precision"
    assert done.chosen.recipe is not None
    assert done.chosen.recipe.exclude_nodes == ("a", "b")


def test_the_last_resorts_are_distillation_and_half_precision() -> None:
    done = climbed(0.05)
    assert [t.rung for t in done.trials][-2:] == ["distillation", "half precision"]
    assert done.chosen.precision == "fp16"
    assert done.chosen.recipe is None
    assert done.survived


def test_where_nothing_suffices_it_is_refused_and_the_best_attempt_is_named() -> None:
    done = climbed(0.05, refused="the target has no fp16")
    assert not done.survived
    assert "none sufficed" in done.stopped
    assert done.chosen.recipe is not None
    assert len(done.chosen.recipe.exclude_nodes) > 2
    assert done.trials[-1].note == "the target has no fp16"


def test_no_attempt_begins_after_the_budget() -> None:
    done = climbed(0.05, minutes=0.0)
    assert [trial.rung for trial in done.trials] == ["default"]
    assert "budget" in done.stopped
    assert not done.survived


def test_an_attempt_that_cannot_be_made_is_noted_and_passed_over() -> None:
    def judge(attempt: Attempt) -> Judged:
        if attempt.rung == "range estimator":
            raise CompressionError("no such estimator", "use another")
        return judged(0.1, worth(attempt)) if attempt.rung != "half precision" else judged(0.0, 0.0)

    done = climb(start(), rungs(), judge, margin=0.01, minutes=5.0)
    failed = [trial for trial in done.trials if trial.rung == "range estimator"]
    assert failed
    assert all("no such estimator" in trial.note and not trial.kept for trial in failed)
    assert done.chosen.rung == "half precision"


def test_a_default_that_cannot_be_made_ends_the_export() -> None:
    def judge(attempt: Attempt) -> Judged:
        raise CompressionError("the engine broke", "")

    with pytest.raises(EdgetlError, match="the engine broke"):
        climb(start(), rungs(), judge, margin=0.01, minutes=1.0)


@pytest.mark.parametrize(
    ("outcome", "good"),
    [
        (judged(0.0, 0.1), True),
        (judged(0.004, 0.1), True),
        (judged(0.006, 0.1), False),
        (judged(0.02, 0.1), False),
        (Judged(200, 0.9, -0.02, -0.001, 7, 3, 0.1, (), 1.0, 2.0), True),
        (Judged(200, 0.9, -0.02, -0.001, 4, 0, 0.1, (), 1.0, 2.0), False),
        (judged(0.0, 0.1, ("cat",)), False),
        (Judged(40, 0.9, 0.0, -0.02, 0, 0, 0.1, (), 1.0, 2.0), True),
        (Judged(40, 0.9, -0.1, -0.02, 4, 0, 0.1, (), 1.0, 2.0), False),
        (Judged(40, 0.9, 0.0, float("nan"), 0, 0, float("nan"), (), 1.0, 2.0), False),
        (Judged(200, 0.9, 0.0, -0.02, 0, 0, 0.1, (), 1.0, 2.0), False),
        (Judged(200, 0.9, 0.0, float("nan"), 0, 0, float("nan"), (), 1.0, 2.0), False),
    ],
)
def test_good_means_no_loss_of_the_margin_that_is_more_than_chance(outcome: Judged, good: bool) -> None:
    assert outcome.good(0.01) is good


def test_rungs_that_cannot_apply_say_why() -> None:
    done = climbed(0.05, ranked=())
    assert any("no layer in float" in trial.note for trial in done.trials)
    notes = {trial.rung: trial.note for trial in done.trials if trial.attempt is None}
    assert notes["asymmetric activations"] == "activations are asymmetric already"
    tensorrt = dict(recipe_rungs(64))["asymmetric activations"](start("tensorrt-int8"))
    assert tensorrt == "TensorRT takes symmetric activations only"


def test_openvino_may_turn_to_asymmetric_activations() -> None:
    offered = dict(recipe_rungs(64))["asymmetric activations"](start("openvino-int8"))
    assert [a.recipe.activations_symmetric for a in offered if isinstance(a, Attempt) and a.recipe] == [False]


@pytest.mark.parametrize("name", ["ort-x86-int8", "ort-aarch64-int8", "openvino-int8", "tensorrt-int8"])
def test_every_rung_proposes_recipes_that_their_engine_takes(name: str) -> None:
    for rung, propose in recipe_rungs(64):
        offered = propose(start(name))
        assert isinstance(offered, str) or all(isinstance(a.recipe, Recipe) for a in offered), rung


def test_calibration_never_asks_for_more_images_than_there_are() -> None:
    (attempt,) = dict(recipe_rungs(17))["calibration samples"](start())
    assert isinstance(attempt, Attempt)
    assert attempt.recipe is not None
    assert attempt.recipe.size == 17


def test_a_layer_left_out_by_the_recipe_stays_left_out() -> None:
    recipe = with_changes(load_recipe("ort-x86-int8"), exclude_nodes=("z",))
    offered = list(
        mixed_precision(lambda best: [Reverted(("a",), "little")])[1](Attempt("default", "", "int8", recipe))
    )
    assert isinstance(offered[0], Attempt)
    assert offered[0].recipe is not None
    assert offered[0].recipe.exclude_nodes == ("a", "z")


def test_the_record_is_json_and_names_every_trial() -> None:
    record = json.loads(json.dumps(to_json(climbed(0.18).record())))
    assert record["needed"] is True
    assert record["chosen"] == "mixed precision"
    assert len(record["trials"]) > 5
    assert all(trial["seconds"] >= 0 for trial in record["trials"])


def test_a_record_without_times_is_the_same_for_equal_climbs() -> None:
    first, second = climbed(0.18).record(), climbed(0.18).record()
    assert first.untimed() == second.untimed()
    assert "2.0" not in json.dumps(to_json(first.untimed()))


def test_a_remainder_that_may_be_chance_is_left_to_the_certificate() -> None:
    uncertain = Judged(200, 0.9, -0.005, -0.02, 3, 2, 0.1, (), 1.0, 2.0)
    done = climb(start(), rungs(refused="no fp16"), lambda attempt: uncertain, margin=0.01, minutes=5.0)
    assert done.needed
    assert done.survived
    assert "may be chance (3 lost, 2 gained)" in done.stopped
