"""The certificate: its fields, its verdict, its words, and what happens when it is edited."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.base.errors import CertifyError, EdgetlError
from edgetl.base.storage import read_sealed, sealed, write_json, write_sealed
from edgetl.certify import Certificate, PairedCounts, certify, noninferiority

PROMISED = {
    "verdict", "reference_accuracy", "deployed_accuracy", "difference", "ci_low", "ci_high", "margin", "alpha", "n",
    "n_needed", "flips", "classes", "transfer_gain_retained", "ladder", "first_divergence", "executed", "runtime",
    "isa", "precision", "hashes",
}  # fmt: skip
NAMES = ("crack", "dent", "scratch", "clean")


def arrays(n: int = 1200, lost: int = 3, gained: int = 2, wrong: int = 40) -> tuple[Any, Any, Any]:
    """(reference, deployed, labels) over four classes with given flips, spread evenly over the classes."""
    labels = np.arange(n) % 4
    reference, deployed = labels.copy(), labels.copy()
    other = (labels + 1) % 4
    reference[:wrong], deployed[:wrong] = other[:wrong], other[:wrong]
    deployed[:gained] = labels[:gained]
    deployed[wrong : wrong + lost] = other[wrong : wrong + lost]
    return reference, deployed, labels


def collapsed() -> tuple[Any, Any, Any]:
    """The mean holds (more gained than lost) while one class of 40 images loses 12 of them."""
    labels = np.concatenate([np.full(40, 0), np.full(3000, 1)])
    reference, deployed = labels.copy(), labels.copy()
    deployed[:12] = 1
    reference[40:60] = 0
    return reference, deployed, labels


def test_all_promised_fields_are_there() -> None:
    reference, deployed, labels = arrays()
    certificate = certify(
        reference, deployed, labels, NAMES,
        executed="device", runtime="onnxruntime 1.32", isa="x86-64", precision="int8",
        hashes={"model": "a" * 64}, executed_on={"device": "bench-3", "kind": "ssh"}, created="2026-01-01T00:00:00Z",
    )  # fmt: skip
    record = certificate.to_json()
    assert set(record) >= PROMISED
    test = noninferiority(PairedCounts.from_predictions(reference, deployed, labels))
    assert (certificate.verdict, certificate.n_needed) == (test.verdict, test.n_needed) == ("pass", test.n_needed)
    assert (certificate.ci_low, certificate.ci_high, certificate.difference) == (test.ci_low, test.ci_high, -1 / 1200)
    assert (certificate.n, certificate.margin, certificate.alpha) == (1200, 0.01, 0.05)
    assert certificate.flips == {"lost": 3, "gained": 2}
    assert certificate.reference_accuracy == 1160 / 1200
    assert certificate.deployed_accuracy == 1159 / 1200
    assert tuple(certificate.classes) == NAMES
    assert {"n", "reference_recall", "deployed_recall", "difference", "p", "adjusted_p"} <= set(
        record["classes"]["crack"]
    )
    assert (certificate.executed, certificate.runtime, certificate.isa) == ("device", "onnxruntime 1.32", "x86-64")
    assert certificate.transfer_gain_retained is None
    assert "no baseline" in certificate.notes[0]
    assert "Tango 1998" in certificate.method
    assert certificate.reasons == ("With 95 % confidence the loss is smaller than the margin of 1 point.",)


def test_nothing_reads_a_clock() -> None:
    assert certify(*arrays()).digest == certify(*arrays()).digest
    assert certify(*arrays()).created == ""


def test_balanced_accuracy_weighs_classes_equally() -> None:
    certificate = certify(*collapsed(), ("rare", "common"))
    assert certificate.reference_balanced_accuracy == pytest.approx((1 + 2980 / 3000) / 2)
    assert certificate.deployed_balanced_accuracy == pytest.approx((28 / 40 + 1) / 2)


def test_one_collapsed_class_fails_although_the_mean_holds() -> None:
    certificate = certify(*collapsed(), ("rare", "common"))
    assert certificate.ci_low > -0.01
    assert certificate.verdict == "fail"
    assert certificate.classes["rare"].collapsed
    assert "The recall of class 'rare' fell from 100.00 % to 70.00 %" in certificate.reasons[-1]
    assert certificate.first_divergence == "deployed"


def test_significant_class_losses_within_the_margin_are_noted_only() -> None:
    labels = np.zeros(50_000, dtype=int)
    certificate = certify(labels, (np.arange(50_000) < 100).astype(int), labels, ("a", "b"))
    assert certificate.verdict == "pass"
    assert any("Class 'a' lost more than chance" in note for note in certificate.notes)
    assert any("1 of 2 classes have no image here and were not tested: b" in note for note in certificate.notes)


@pytest.mark.parametrize(
    ("counts", "start"),
    [
        ({"n": 200, "lost": 0, "gained": 0}, "200 images are too few to rule out a loss of 1 point; about "),
        (
            {"n": 1000, "lost": 30, "gained": 0},
            "The loss observed, 3 points, is more than chance and not smaller than the margin.",
        ),
        (
            {"n": 5000, "lost": 100, "gained": 60, "wrong": 200},
            "5,000 images are too few to rule out a loss of 1 point",
        ),
    ],
)
def test_reasons_say_what_decided(counts: dict[str, int], start: str) -> None:
    assert certify(*arrays(**counts)).reasons[0].startswith(start)


def test_margin_zero_says_that_the_deployed_model_must_be_better() -> None:
    certificate = certify(*arrays(lost=0, gained=0), margin=0)
    assert (certificate.verdict, certificate.n_needed) == ("underpowered", None)
    assert certificate.reasons == (
        "With a margin of 0 the deployed model must be proven better, and 1,200 images do not.",
    )


def test_the_certificate_in_plain_words() -> None:
    words = certify(*arrays(), NAMES, executed="simulated", runtime="tensorrt", precision="int8").sentence()
    assert words.startswith(
        "On 1,200 images held back for certification the reference is right on 1,160 (96.67 %) and the deployed model, "
        "simulated, not run on the device (tensorrt int8), on 1,159 (96.58 %): −0.08 points, 90 % interval "
    )
    assert "3 lost and 2 gained. Verdict at a margin of 1 point: pass." in words


# --- the ladder


def test_ladder_names_the_first_rung_that_loses_the_margin() -> None:
    reference, deployed, labels = arrays(lost=60)
    certificate = certify(
        reference, deployed, labels, NAMES, rungs=[("float onnx", reference), ("int8 in float", deployed)]
    )
    assert [rung.name for rung in certificate.ladder] == ["reference", "float onnx", "int8 in float", "deployed"]
    assert [rung.diverges for rung in certificate.ladder] == [False, False, True, False]
    assert [rung.agreement for rung in certificate.ladder] == [1.0, 1.0, 1 - 62 / 1200, 1.0]
    assert [rung.lost for rung in certificate.ladder] == [None, 0, 60, 0]
    assert certificate.ladder[0].accuracy == certificate.reference_accuracy
    assert certificate.ladder[-1].accuracy == certificate.deployed_accuracy
    assert certificate.first_divergence == "int8 in float"


def test_a_loss_spread_over_rungs_names_none_of_them_and_says_so() -> None:
    reference, middle, labels = arrays(n=1000, lost=7, gained=0)
    _, deployed, _ = arrays(n=1000, lost=14, gained=0)
    certificate = certify(reference, deployed, labels, rungs=[("float onnx", middle)])
    assert certificate.verdict == "fail"
    assert certificate.first_divergence is None
    assert any("adds up over several" in note for note in certificate.notes)


def test_small_samples_alone_make_no_rung_diverge() -> None:
    reference, deployed, labels = arrays(n=60, lost=0, gained=1, wrong=5)
    certificate = certify(reference, deployed, labels, rungs=[("float onnx", reference)])
    assert certificate.verdict == "underpowered"
    assert certificate.first_divergence is None


# --- as a record


@given(
    flips=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    n=st.integers(80, 900),
    margin=st.floats(0, 0.2),
    named=st.booleans(),
)
@settings(deadline=None, derandomize=True, max_examples=30)
def test_round_trip_through_json(flips: tuple[int, int], n: int, margin: float, named: bool) -> None:
    certificate = certify(*arrays(n, *flips), NAMES if named else None, margin=margin)
    record = json.loads(json.dumps(certificate.to_json()))
    assert Certificate.from_json(record) == certificate
    assert Certificate.from_json(record).digest == record["digest"] == certificate.digest


def test_round_trip_through_a_file_that_adds_fields(tmp_path: Path) -> None:
    certificate = certify(*arrays(), NAMES)
    write_sealed(tmp_path / "certificate.json", {**certificate.to_json(), "manifest": "b" * 64})
    assert Certificate.from_json(read_sealed(tmp_path / "certificate.json")) == certificate


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Certificate)])
def test_any_edit_is_refused(field: str) -> None:
    record = certify(*arrays(), NAMES).to_json()
    edits = {"verdict": "fail", "ci_low": 0.0, "n": 12_000, "margin": 0.5, "classes": {}, "ladder": []}
    record[field] = edits.get(field, "edited")
    with pytest.raises(CertifyError, match="the certificate was altered"):
        Certificate.from_json(record)


def test_an_edit_inside_a_class_is_refused(tmp_path: Path) -> None:
    record = certify(*arrays(), NAMES).to_json()
    record["classes"]["crack"]["deployed_recall"] = 1.0
    with pytest.raises(CertifyError, match="altered"):
        Certificate.from_json(record)
    write_json(tmp_path / "c.json", record)
    with pytest.raises(CertifyError, match="altered"):
        read_sealed(tmp_path / "c.json", CertifyError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, r"another version of edgetl \(schema 1, this one reads 3\)"),
        ({"n": None}, "the certificate: n is missing: delete it, then make it again"),
        ({"executed": "elsewhere"}, "the certificate: executed is .elsewhere., not one of .device., .host."),
    ],
)
def test_records_of_another_version(change: dict[str, Any], message: str) -> None:
    record = {**certify(*arrays()).to_json(), **change}
    record = {key: value for key, value in record.items() if value is not None or key not in change}
    with pytest.raises(CertifyError, match=message):
        Certificate.from_json(sealed(record))


@pytest.mark.parametrize("record", [None, [], "text", {}])
def test_what_is_no_certificate(record: Any) -> None:
    with pytest.raises(CertifyError):
        Certificate.from_json(record)


# --- refusing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("a", "b", "c")}, "labels holds class 3, but there are only 3 class names"),
        ({"class_names": ("a", "b", "b", "c")}, "the class name 'b' is given twice"),
        ({"executed": "cloud"}, "executed 'cloud' is unknown"),
        ({"margin": -1}, "margin -1 is not in the range"),
        ({"alpha": 0.7}, "alpha 0.7 is not between"),
        (
            {"rungs": [("float onnx", [0, 1])]},
            "different lengths (labels 1200, reference 1200, float onnx 2, deployed 1200)",
        ),
        ({"rungs": [("float onnx", [7] * 1200)], "class_names": NAMES}, "float onnx holds class 7"),
    ],
)
def test_comparisons_that_would_be_meaningless(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CertifyError) as caught:
        certify(*arrays(), **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, EdgetlError)
    assert caught.value.exit_status == 2


def test_without_names_the_indexes_are_the_names_and_predictions_may_go_beyond_them() -> None:
    certificate = certify([0, 5, 9], [0, 5, 800], [0, 5, 5])
    assert list(certificate.classes) == ["0", "5"]


def test_fifty_thousand_images_of_a_thousand_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 50_000)
    reference = np.where(rng.random(50_000) < 0.8, labels, rng.integers(0, 1000, 50_000))
    deployed = np.where(rng.random(50_000) < 0.99, reference, rng.integers(0, 1000, 50_000))
    certificate = certify(reference, deployed, labels, rungs=[("float onnx", reference)])
    assert len(certificate.classes) == 1000
    assert certificate.verdict in ("pass", "fail")
