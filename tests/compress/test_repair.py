"""Repair: which attempts are made, which is kept, when it stops, and what is recorded of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from edgetl.base.errors import CompressionError, EdgetlError
from edgetl.base.schema import to_json
from edgetl.compress.outcome import Outcome
from edgetl.compress.recipes import Recipe, load_recipe, with_changes
from edgetl.compress.remedies import REMEDIES
from edgetl.compress.repair import Attempt, Means, Repair, Reverted, try_remedies


def outcome(loss: float, kl: float, collapsed: tuple[str, ...] = ()) -> Outcome:
    lost = round(200 * loss)
    return Outcome(200, 0.9 - loss, -loss, -loss, lost, 0, kl, collapsed, 1.0, 2.0)


def start(name: str = "ort-x86-int8") -> Attempt:
    return Attempt("as it is", "int8", load_recipe(name))


def means(
    ranked: Sequence[str] = ("a", "b", "c", "d", "e"),
    refused: str | None = None,
    available: int = 64,
    kind: str = "convolutional",
    heads: Sequence[str] = (),
) -> Means:
    return Means(
        kind=kind,
        available=available,
        refuses=lambda precision: refused,
        ranked=lambda best: [Reverted((node,), "little") for node in ranked],
        distilled=lambda best: ("10 steps", "distilled-1"),
        trained=lambda best: ("10 steps to the labels", f"trained-after-{best.source}"),
        refitted=lambda best: [(f"the head fitted again to {aim}", f"refitted-{aim}") for aim in heads],
    )


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


def repaired(threshold: float, minutes: float = 5.0, **options: object) -> Repair:
    def measure(attempt: Attempt) -> Outcome:
        kl = worth(attempt)
        return outcome(0.0 if kl <= threshold else 0.1, kl)

    return try_remedies(start(), REMEDIES, means(**options), measure, margin=0.01, minutes=minutes)  # type: ignore[arg-type]


def test_a_good_default_is_left_alone() -> None:
    done = repaired(1.0)
    assert not done.needed
    assert done.survived
    assert [trial.remedy for trial in done.trials] == ["default"]
    assert done.chosen == start()


def test_remedies_build_on_what_was_kept_and_stop_at_the_first_that_suffices() -> None:
    done = repaired(0.32)
    assert done.survived
    assert done.chosen.remedy == "bias correction"
    kept = [trial for trial in done.trials if trial.kept]
    assert [trial.attempt.change for trial in kept if trial.attempt][-1] == "full bias correction"
    recipe = done.chosen.recipe
    assert recipe is not None
    assert (recipe.selection, recipe.estimator, recipe.bias_correction) == ("k-centre", "mse", "full")
    assert "mixed precision" not in {trial.remedy for trial in done.trials}


def test_the_head_is_fitted_again_before_anything_else() -> None:
    """To the labels first, then to the trained model's outputs; the better one is built upon."""
    loss = {"trained": 0.1, "refitted-labels": 0.05, "refitted-outputs": 0.0}

    def measure(attempt: Attempt) -> Outcome:
        return outcome(loss[attempt.source], 10 * loss[attempt.source])

    both = means(heads=("labels", "outputs"))
    done = try_remedies(start(), REMEDIES, both, measure, margin=0.01, minutes=5.0)
    assert [trial.remedy for trial in done.trials] == ["default", "head refit", "head refit"]
    assert done.chosen.source == "refitted-outputs"
    assert done.chosen.recipe == start().recipe
    loss["refitted-labels"] = 0.0
    done = try_remedies(start(), REMEDIES, both, measure, margin=0.01, minutes=5.0)
    assert done.chosen.source == "refitted-labels"
    assert len(done.trials) == 2


def test_nothing_is_built_on_a_head_that_was_fitted_to_one_recipe() -> None:
    """Other settings give other features. A refit that helps and does not suffice is deployed if nothing else helps."""

    def measure(attempt: Attempt) -> Outcome:
        moved = attempt.recipe is not None and attempt.recipe.estimator != "min-max"
        if attempt.source == "trained":
            return outcome(0.2, 3.0 if moved else 4.0)
        return outcome(0.08 if moved else 0.1, 1.0)

    both = means(heads=("labels",), refused="not here")
    done = try_remedies(start(), REMEDIES, both, measure, margin=0.01, minutes=5.0)
    training = ("distillation", "quantization-aware training")
    tried = [trial.attempt for trial in done.trials if trial.attempt and trial.remedy not in training]
    assert {one.source for one in tried if not one.fitted} == {"trained"}
    assert [trial.remedy for trial in done.trials if trial.attempt and trial.attempt.fitted] == [
        "head refit",
        "head refit again",
    ]
    assert done.chosen.fitted
    assert done.chosen.recipe is not None
    assert done.chosen.recipe.estimator != "min-max"


def test_a_network_without_a_linear_head_is_repaired_in_other_ways() -> None:
    def no_head(best: Attempt) -> Sequence[tuple[str, str]]:
        raise CompressionError("the network's last layer is no linear head", "no remedy of its head helps")

    without = replace(means(), refitted=no_head)
    done = try_remedies(start(), REMEDIES, without, lambda a: outcome(0.1, worth(a)), margin=0.01, minutes=5.0)
    told = next(trial for trial in done.trials if trial.remedy == "head refit")
    assert told.note == "the network's last layer is no linear head: no remedy of its head helps"
    assert len({trial.remedy for trial in done.trials}) > 3


def test_an_attempt_that_does_not_help_is_not_built_upon() -> None:
    done = repaired(0.32)
    recipe = done.chosen.recipe
    assert recipe is not None
    assert not recipe.equalize
    percentiles = [t for t in done.trials if t.attempt and t.attempt.recipe and t.attempt.recipe.percentile == 99.99]
    assert percentiles
    assert not any(trial.kept for trial in percentiles)


def test_mixed_precision_takes_the_fewest_layers() -> None:
    done = repaired(0.18)
    assert done.chosen.remedy == "mixed precision"
    assert done.chosen.recipe is not None
    assert done.chosen.recipe.exclude_nodes == ("a", "b")


def test_the_last_resorts_are_training_and_half_precision() -> None:
    done = repaired(0.05)
    last = ["distillation", "quantization-aware training", "half precision"]
    assert [t.remedy for t in done.trials][-3:] == last
    assert done.chosen.precision == "fp16"
    assert done.chosen.recipe is None
    assert done.survived


def test_where_nothing_suffices_it_is_refused_and_the_best_attempt_is_named() -> None:
    done = repaired(0.05, refused="the target has no fp16")
    assert not done.survived
    assert "none sufficed" in done.stopped
    assert done.chosen.recipe is not None
    assert len(done.chosen.recipe.exclude_nodes) > 2
    assert done.trials[-1].note == "the target has no fp16"


def test_no_attempt_begins_after_the_budget() -> None:
    done = repaired(0.05, minutes=0.0)
    assert [trial.remedy for trial in done.trials] == ["default"]
    assert "budget" in done.stopped
    assert not done.survived


def test_an_attempt_that_cannot_be_made_is_noted_and_passed_over() -> None:
    def measure(attempt: Attempt) -> Outcome:
        if attempt.remedy == "range estimator":
            raise CompressionError("no such estimator", "use another")
        return outcome(0.1, worth(attempt)) if attempt.remedy != "half precision" else outcome(0.0, 0.0)

    done = try_remedies(start(), REMEDIES, means(), measure, margin=0.01, minutes=5.0)
    failed = [trial for trial in done.trials if trial.remedy == "range estimator"]
    assert failed
    assert all("no such estimator" in trial.note and not trial.kept for trial in failed)
    assert done.chosen.remedy == "half precision"


def test_a_default_that_cannot_be_made_ends_the_export() -> None:
    def measure(attempt: Attempt) -> Outcome:
        raise CompressionError("the engine broke", "")

    with pytest.raises(EdgetlError, match="the engine broke"):
        try_remedies(start(), REMEDIES, means(), measure, margin=0.01, minutes=1.0)


@pytest.mark.parametrize(
    ("outcome", "good"),
    [
        (outcome(0.0, 0.1), True),
        (outcome(0.004, 0.1), True),
        (outcome(0.006, 0.1), False),
        (outcome(0.02, 0.1), False),
        (Outcome(200, 0.9, -0.02, -0.001, 7, 3, 0.1, (), 1.0, 2.0), True),
        (Outcome(200, 0.9, -0.02, -0.001, 4, 0, 0.1, (), 1.0, 2.0), False),
        (outcome(0.0, 0.1, ("cat",)), False),
        (Outcome(40, 0.9, 0.0, -0.02, 0, 0, 0.1, (), 1.0, 2.0), True),
        (Outcome(40, 0.9, -0.1, -0.02, 4, 0, 0.1, (), 1.0, 2.0), False),
        (Outcome(40, 0.9, 0.0, float("nan"), 0, 0, float("nan"), (), 1.0, 2.0), False),
        (Outcome(200, 0.9, 0.0, -0.02, 0, 0, 0.1, (), 1.0, 2.0), False),
        (Outcome(200, 0.9, 0.0, float("nan"), 0, 0, float("nan"), (), 1.0, 2.0), False),
    ],
)
def test_good_means_no_loss_of_the_margin_that_is_more_than_chance(outcome: Outcome, good: bool) -> None:
    assert outcome.good(0.01) is good


def test_remedies_that_cannot_apply_say_why() -> None:
    done = repaired(0.05, ranked=())
    assert any("no layer in float" in trial.note for trial in done.trials)
    notes = {trial.remedy: trial.note for trial in done.trials if trial.attempt is None}
    assert notes["asymmetric activations"] == "activations are asymmetric already"
    tensorrt = REMEDIES["asymmetric activations"](start("tensorrt-int8"), means())
    assert tensorrt == "TensorRT takes symmetric activations only"


def test_openvino_may_turn_to_asymmetric_activations() -> None:
    offered = REMEDIES["asymmetric activations"](start("openvino-int8"), means())
    assert [a.recipe.activations_symmetric for a in offered if isinstance(a, Attempt) and a.recipe] == [False]


@pytest.mark.parametrize("name", ["ort-x86-int8", "ort-aarch64-int8", "openvino-int8", "tensorrt-int8"])
def test_every_remedy_proposes_recipes_that_their_engine_takes(name: str) -> None:
    for remedy, propose in REMEDIES.items():
        offered = propose(start(name), means(refused="no fp16"))
        assert isinstance(offered, str) or all(isinstance(a.recipe, Recipe) for a in offered), remedy


def test_calibration_never_asks_for_more_images_than_there_are() -> None:
    (attempt,) = REMEDIES["calibration samples"](start(), means(available=17))
    assert isinstance(attempt, Attempt)
    assert attempt.recipe is not None
    assert attempt.recipe.size == 17


def test_a_layer_left_out_by_the_recipe_stays_left_out() -> None:
    recipe = with_changes(load_recipe("ort-x86-int8"), exclude_nodes=("z",))
    offered = list(REMEDIES["mixed precision"](Attempt("", "int8", recipe), means(ranked=("a",))))
    assert isinstance(offered[0], Attempt)
    assert offered[0].recipe is not None
    assert offered[0].recipe.exclude_nodes == ("a", "z")


def test_the_record_is_json_and_names_every_trial() -> None:
    record = json.loads(json.dumps(to_json(repaired(0.18).record("accuracy", "share"))))
    assert record["needed"] is True
    assert record["chosen"] == "mixed precision"
    assert len(record["trials"]) > 5
    assert all(trial["seconds"] >= 0 for trial in record["trials"])


def test_a_record_without_times_is_the_same_for_equal_repairs() -> None:
    first, second = repaired(0.18).record("accuracy", "share"), repaired(0.18).record("accuracy", "share")
    assert first.untimed() == second.untimed()
    assert "2.0" not in json.dumps(to_json(first.untimed()))


def test_a_remainder_that_may_be_chance_is_left_to_the_certificate() -> None:
    uncertain = Outcome(200, 0.9, -0.005, -0.02, 3, 2, 0.1, (), 1.0, 2.0)
    done = try_remedies(
        start(), REMEDIES, means(refused="no fp16"), lambda attempt: uncertain, margin=0.01, minutes=5.0
    )
    assert done.needed
    assert done.survived
    assert "may be chance (3 lost, 2 gained)" in done.stopped


def test_where_no_answer_is_right_or_wrong_the_error_of_the_difference_decides() -> None:
    def measured(difference: float, error: float) -> Outcome:
        return Outcome(140, 3.1, difference, difference, 0, 0, 0.1, (), 1.0, 2.0, resolution=0.01, error=error)

    assert measured(-0.02, 0.01).good(0.1)
    assert measured(-0.3, 0.1).broken(0.1)
    assert not measured(-0.3, 0.5).broken(0.1)
    assert not measured(-0.3, 0.5).good(0.1)
    assert measured(-0.3, 0.1).p_value == pytest.approx(0.00135, rel=0.01)
    assert not measured(-0.008, 0.0).broken(0.0)


def test_what_suits_no_dynamic_recipe_is_passed_over() -> None:
    first = start("ort-x86-transformer-int8")
    offered = {name: remedy(first, means(kind="transformer")) for name, remedy in REMEDIES.items()}
    proposed = {name for name, found in offered.items() if not isinstance(found, str)}
    assert proposed == {"head refit", "head refit again", "mixed precision", "half precision"}
    why = "how transformers are quantized is not imitated in training"
    assert offered["distillation"] == offered["quantization-aware training"] == why


def test_a_head_that_learned_is_judged_by_the_loss_to_be_expected() -> None:
    """Its answers differ from the trained model's by more than noise: the divergence says nothing of it."""
    losses = {"labels": -0.012, "outputs": -0.02}

    def measure(attempt: Attempt) -> Outcome:
        aim = attempt.source.removeprefix("refitted-")
        lost, divergence = (losses[aim], 9.0) if attempt.fitted else (-0.08, 1.0)
        return Outcome(500, 0.9, lost, lost, 8, 2, divergence, (), 1.0, 2.0)

    refits = {name: remedy for name, remedy in REMEDIES.items() if name == "head refit"}
    done = try_remedies(start(), refits, means(heads=list(losses)), measure, margin=0.01, minutes=5)
    assert [trial.kept for trial in done.trials] == [True, True, False]
    assert done.chosen.source == "refitted-labels"
