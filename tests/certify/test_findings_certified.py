"""What a certificate says beyond the paired test: findings, layers, probabilities, and metrics other than accuracy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportions_ztest

from edgetl.base.errors import CertifyError, UnknownNameError
from edgetl.base.schema import from_json
from edgetl.certify import Baseline, Certificate, PairedCounts, certify, noninferiority
from edgetl.certify.sanity import two_sample_p
from edgetl.core.certificate_parts import Robustness
from edgetl.core.compression import LayerNoise, RepairRecord, TrialRecord
from edgetl.core.findings import KINDS, Finding
from tests.certify.tested import balanced_accuracy_test

CLEAN = np.arange(2000) % 4
LAYERS = [LayerNoise(f"node{i}", f"block.{i}.conv", "weights", float(i), 0.1, 0.0, f"node{i}") for i in range(7)]


def flipped(lost: int = 0, gained: int = 0, n: int = 2000) -> tuple[Any, Any, Any]:
    """(reference, deployed, labels) with flips spread over the classes."""
    labels = np.arange(n) % 4
    reference, deployed = labels.copy(), labels.copy()
    deployed[:lost] = (labels[:lost] + 1) % 4
    reference[n - gained :] = (labels[n - gained :] + 1) % 4
    return reference, deployed, labels


def kinds(certificate: Certificate) -> list[str]:
    return [finding.kind for finding in certificate.findings]


# --- findings of the caller


def test_a_fatal_finding_fails_whatever_the_accuracies_are() -> None:
    finding = Finding("channel-order", "Red and blue are swapped in 20 of 20 images", evidence={"images": 20})
    certificate = certify(*flipped(), findings=[finding])
    assert certify(*flipped()).verdict == "pass"
    assert certificate.verdict == "fail"
    assert certificate.reasons[0] == (
        "Red and blue are swapped in 20 of 20 images. To do: feed RGB: convert from BGR once, before the network."
    )
    assert certificate.findings == (finding,)
    assert "Found: red and blue are swapped (fatal)." in certificate.sentence()


def test_a_warning_is_a_note_and_leaves_the_verdict() -> None:
    certificate = certify(*flipped(), findings=[Finding("calibration-too-few", "The ranges come from 4 images.")])
    assert certificate.verdict == "pass"
    assert any(
        note == "The ranges come from 4 images. To do: calibrate with 32 samples or more." for note in certificate.notes
    )
    assert len(certificate.reasons) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_decides_by_its_severity(kind: str) -> None:
    verdict = certify(*flipped(), findings=[Finding(kind, "Something.")]).verdict
    # Whether the gain is suspicious is tested anew from the predictions, whatever was found before.
    assert verdict == ("fail" if KINDS[kind].severity == "fatal" else "pass")


def test_fatal_findings_come_first() -> None:
    given = [Finding("saturation", "a"), Finding("layout", "b"), Finding("runtime", "c")]
    assert kinds(certify(*flipped(), findings=given)) == ["layout", "saturation", "runtime"]


# --- sanity of the reference


@pytest.mark.parametrize(
    ("recorded", "measured", "n", "found"),
    [
        (0.9, 0.9, 1000, False),
        (0.9, 0.904, 1000, False),
        (0.9, 0.89, 1000, True),
        (0.9, 0.25, 1000, True),
        (0.25, 0.9, 1000, True),
        (0.9, 0.8, 10, False),
        (0.9, 0.7, 10, True),
    ],
)
def test_the_reference_reproduces_what_training_recorded(recorded: float, measured: float, n: int, found: bool) -> None:
    certificate = certify(*flipped(), reproduced=(recorded, measured, n))
    assert (kinds(certificate) == ["reference-not-reproduced"]) == found
    assert certificate.verdict == ("fail" if found else "pass")


def test_a_reference_far_below_its_validation_is_noted() -> None:
    labels = CLEAN
    reference = np.where(np.arange(2000) % 10 < 3, (labels + 1) % 4, labels)
    noted = certify(reference, reference, labels, reproduced=(0.95, 0.95, 400)).notes
    assert any("right on 70.00 % of the certify images, but on 95.00 % of the 400 of validation" in n for n in noted)
    for unremarkable in ((0.8, 0.8, 400), (0.95, 0.95, 5), None):
        notes = certify(reference, reference, labels, reproduced=unremarkable).notes
        assert not any("validation" in note for note in notes)


@pytest.mark.parametrize(("a", "n", "b", "m"), [(95, 100, 60, 100), (50, 60, 300, 400), (10, 10, 10, 10), (0, 9, 3, 5)])
def test_two_sample_p_is_that_of_statsmodels(a: int, n: int, b: int, m: int) -> None:
    expected = proportions_ztest([a, b], [n, m], alternative="larger")[1] if (a + b) % (n + m) else 1.0
    assert two_sample_p(a, n, b, m) == pytest.approx(expected, abs=1e-12)


def test_a_deployed_model_that_is_far_better_is_suspicious() -> None:
    certificate = certify(*flipped(gained=200))
    assert certificate.verdict == "pass"
    assert kinds(certificate) == ["suspicious-gain"]
    assert any("compression adds no knowledge" in note for note in certificate.notes)
    assert kinds(certify(*flipped(gained=40))) == []
    assert kinds(certify(*flipped(gained=200), margin=0.1)) == []


def test_what_is_tested_anew_replaces_what_an_earlier_certificate_said() -> None:
    strict = certify(*flipped(gained=200), baseline=Baseline("probe", CLEAN), reproduced=(0.9, 0.1, 100))
    assert sorted(kinds(strict)) == ["negative-transfer", "reference-not-reproduced", "suspicious-gain"]
    assert all(finding.evidence["statistical"] for finding in strict.findings)
    earlier = strict.findings
    lax = certify(*flipped(gained=200), margin=0.2, findings=earlier, reproduced=(0.9, 0.9, 100))
    assert kinds(lax) == ["negative-transfer"]
    again = certify(
        *flipped(gained=200), findings=earlier, baseline=Baseline("probe", CLEAN), reproduced=(0.9, 0.1, 100)
    )
    assert again == strict


# --- layers and other records


def test_a_failure_names_the_layers_behind_the_first_divergence() -> None:
    reference, deployed, labels = flipped(lost=200)
    certificate = certify(reference, deployed, labels, rungs=[("Q/DQ in float", deployed)], layers=LAYERS)
    assert certificate.first_divergence == "Q/DQ in float"
    assert certificate.reasons[-1] == (
        "The ladder diverges at 'Q/DQ in float'; layers behind it, the worst first: "
        "block.0.conv, block.1.conv, block.2.conv, block.3.conv, block.4.conv …."
    )
    assert certificate.layers == tuple(LAYERS)


def test_layers_are_named_once_and_by_their_node_where_the_module_is_unknown() -> None:
    named = [("Gemm_9", "head"), ("Gemm_8", "head"), ("Conv_7", ""), ("", "")]
    layers = [replace(LAYERS[0], node=node, module=module) for node, module in named]
    assert certify(*flipped(lost=200), layers=layers).reasons[-1].endswith("the worst first: head, Conv_7, the input.")


def test_without_a_divergence_no_layer_is_blamed() -> None:
    certificate = certify(*flipped(), layers=LAYERS)
    assert not any("layers" in text for text in (*certificate.reasons, *certificate.notes))
    assert len(certificate.layers) == 7


REPAIR = RepairRecord(True, "default", True, "good enough", 0.01, 10.0, None, (TrialRecord(remedy="default"),))
ROW = {
    "corruption": "blur", "severity": 1, "reference_accuracy": 0.9, "deployed_accuracy": 0.8, "difference": -0.1,
    "ci_low": -0.2, "ci_high": 0.0, "lost": 10, "gained": 0, "n": 100, "verdict": "fail",
}  # fmt: skip
ROBUSTNESS = {
    "n": 100, "available": 200, "severities": [1], "clean": ROW, "rows": [ROW, ROW], "worst": ROW,
    "summary": {
        "reference_accuracy": {"clean": 0.9, "corrupted": 0.8}, "deployed_accuracy": {"clean": 0.9, "corrupted": 0.7},
        "clean": 0.0, "corrupted": -0.1, "excess": -0.1, "ci_low": -0.2, "ci_high": 0.0, "p_value": 0.01, "alpha": 0.05,
        "proven": True, "sentence": "Compression hurts more.",
    },
}  # fmt: skip


def test_everything_survives_json() -> None:
    reference, deployed, labels = flipped(lost=3, gained=2)
    logits = np.eye(4)[reference] * 3
    certificate = certify(
        reference, deployed, labels, tuple("abcd"),
        rungs=[("float ONNX", reference)],
        logits={"reference": logits, "float ONNX": logits, "deployed": np.eye(4)[deployed] * 3},
        baseline=Baseline("probe", np.zeros_like(labels)),
        findings=[Finding("saturation", "s", ("a",), {"count": np.int64(3), "worst": float("inf"), "pair": (1, 2)})],
        layers=LAYERS, robustness=from_json(Robustness, ROBUSTNESS, "here"),
        repair=REPAIR,
        metric="balanced-accuracy",
    )  # fmt: skip
    record = json.loads(json.dumps(certificate.to_json(), allow_nan=False))
    assert Certificate.from_json(record) == certificate
    assert record["schema"] == 3
    assert record["findings"][0]["evidence"] == {"count": 3, "worst": None, "pair": [1, 2]}
    assert record["robustness"] == ROBUSTNESS
    assert record["repair"]["trials"][0]["remedy"] == "default"
    assert record["transfer_gain"]["helped"] == "better"
    assert record["probabilities"]["agreement"] == 1995 / 2000


# --- probabilities and the ladder


def test_logits_give_probabilities_and_the_ladders_distances() -> None:
    reference, deployed, labels = flipped(lost=20)
    rng = np.random.default_rng(0)
    before = np.eye(4)[reference] * 4
    after = np.eye(4)[deployed] * 4 + 0.1 * rng.normal(size=before.shape)
    rungs = [("float ONNX", reference), ("Q/DQ in float", deployed)]
    logits = {"reference": before, "float ONNX": before, "Q/DQ in float": after, "deployed": after}
    certificate = certify(reference, deployed, labels, rungs=rungs, logits=logits)
    assert [rung.logit_distance for rung in certificate.ladder][:2] == [None, 0.0]
    assert certificate.ladder[2].logit_distance > 0.01
    assert certificate.ladder[2].kl > 0
    assert certificate.ladder[3].kl == 0
    assert certificate.probabilities is not None
    assert certificate.probabilities.agreement == 0.99
    del logits["float ONNX"]
    fewer = certify(reference, deployed, labels, rungs=rungs, logits=logits)
    assert [rung.kl is None for rung in fewer.ladder] == [True, True, True, False]
    assert fewer.probabilities == certificate.probabilities
    assert certify(reference, deployed, labels, rungs=rungs).probabilities is None
    with pytest.raises(CertifyError, match="which is no rung"):
        certify(reference, deployed, labels, logits=logits)


# --- metrics


def imbalanced() -> tuple[Any, Any, Any]:
    """The rare class loses 6 of 60 images, which accuracy over 6,060 does not notice."""
    labels = np.repeat([0, 1], [60, 6000])
    deployed = labels.copy()
    deployed[:6] = 1
    return labels, deployed, labels


def test_balanced_accuracy_decides_when_it_is_asked_for() -> None:
    names = ("rare", "common")
    accuracy, balanced = certify(*imbalanced(), names), certify(*imbalanced(), names, metric="balanced-accuracy")
    assert (accuracy.verdict, balanced.verdict) == ("pass", "fail")
    test = balanced_accuracy_test(*imbalanced())
    for name in ("difference", "ci_low", "ci_high", "p_value", "n_needed", "reference_score", "deployed_score"):
        assert getattr(balanced, name) == getattr(test, name)
    assert balanced.metric == "balanced-accuracy"
    assert "bootstrap" in balanced.method
    assert (
        "The loss of balanced accuracy observed, 5 points, is more than chance and not smaller than the margin."
        in balanced.reasons
    )
    assert "balanced accuracy 100.00 % and 95.00 %, −5.00 points" in balanced.sentence()
    assert (accuracy.reference_score, accuracy.deployed_score) == (1, accuracy.deployed_accuracy)
    assert accuracy.balanced == balanced.balanced
    assert accuracy.balanced is not None
    assert accuracy.balanced.verdict == "fail"
    assert accuracy.difference == noninferiority(PairedCounts.from_predictions(*imbalanced())).difference


def test_balanced_accuracy_asks_for_more_images() -> None:
    certificate = certify(*flipped(n=200), metric="balanced-accuracy")
    assert certificate.verdict == "underpowered"
    assert certificate.n_needed is not None
    assert certificate.n_needed > 200
    assert "too few to rule out a loss of balanced accuracy of 1 point" in certificate.reasons[0]


def test_unknown_metrics() -> None:
    with pytest.raises(UnknownNameError, match="unknown metric 'balanced': did you mean balanced-accuracy"):
        certify(*flipped(), metric="balanced")


def test_no_method_claims_more_than_chance_allows() -> None:
    """The smallest p-value that a bootstrap can give is one replicate's share."""
    certificate = certify(*flipped(), metric="balanced-accuracy")
    assert 0 < certificate.p_value < stats.norm.sf(1.6)
