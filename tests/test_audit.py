"""Every field of a certificate, changed and sealed again, is refused, but for what no file of a bundle tells."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetl
from edgetl.base.storage import read_json, sha256_file, write_sealed
from edgetl.certify import Predictions
from edgetl.core.bundle import BILL, CERTIFICATE, MODEL_CARD, PREDICTIONS, load_bundle
from edgetl.core.certificate import Certificate
from edgetl.workflow.audit import CLAIMED, audit

Cli = Callable[..., Any]
Keys = tuple[str | int, ...]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle, whose certificate follows from it; whoever changes that takes its papers away."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    assert edgetl.check(tmp_path / "bundle") is None
    for name in (BILL, MODEL_CARD):
        (tmp_path / "bundle" / name).unlink()
    return tmp_path / "bundle"


def leaves(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    """Where each plain value of a record stands, and each empty list or object; itself first."""
    inside = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if not inside:
        yield keys
    for key, item in inside:
        yield from leaves(item, (*keys, key))


def other(value: Any, key: str | int) -> Any:
    """Another value of the same kind, as somebody might like it better."""
    choices = {"verdict": ("pass", "fail"), "unit": ("share", "labels"), "helped": ("better", "worse")}
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + 0.001
    if isinstance(value, str):
        return next((choice for choice in choices.get(str(key), ()) if choice != value), value + "x")
    if isinstance(value, list):
        return ["x"]
    return {"x": 1} if isinstance(value, dict) else 0.5


def edited(record: Any, keys: Keys) -> Any:
    changed = copy.deepcopy(record)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = other(place[keys[-1]], keys[-1])
    return changed


def shape(keys: Keys) -> Keys:
    """The same for values that stand in the same place of like things: one class or rung speaks for all."""
    alike = {"classes", "scores"}
    return tuple("*" if isinstance(key, int) or (i and keys[i - 1] in alike) else key for i, key in enumerate(keys))


def test_every_field_of_a_certificate(bundle: Path) -> None:
    """As many edits as it has kinds of field, each accepted where it is a claim, and nowhere else."""
    record = read_json(bundle / CERTIFICATE)
    fields = {shape(keys): keys for keys in leaves(record) if keys[0] not in ("digest", "manifest")}
    assert {keys[0] for keys in fields} == set(record) - {"digest", "manifest"}
    assert len(fields) > 80
    accepted = set()
    for kind, keys in fields.items():
        write_sealed(bundle / CERTIFICATE, edited(record, keys))
        problem = edgetl.check(bundle)
        if problem is None:
            accepted.add(kind[0])
        else:
            assert problem.isprintable()
    # Of these four fields, some edits are of a shape that is refused all the same: another place, a made-up object.
    assert accepted <= set(CLAIMED), accepted
    assert {"runtime", "executed_on"} <= accepted


@pytest.mark.parametrize("name", [*CLAIMED, "findings"])
def test_what_is_claimed_is_called_so(bundle: Path, name: str) -> None:
    found = audit(bundle)
    assert (found.problem, found.signed, found.signed_by) == (None, False, "")
    assert name in found.trust
    assert "A seal is no signature" in found.trust


def test_edits_that_fit_each_other(bundle: Path) -> None:
    """A failing certificate that is made to pass in each of the places that say so."""
    record = read_json(bundle / CERTIFICATE)
    for metric in record["scores"]:
        changed = copy.deepcopy(record)
        changed["verdict"] = changed["scores"][metric]["verdict"] = "pass" if record["verdict"] != "pass" else "fail"
        changed["metric"] = metric
        changed["reasons"] = ["The loss is less than the margin."]
        write_sealed(bundle / CERTIFICATE, changed)
        assert "does not follow from" in str(edgetl.check(bundle))


@pytest.mark.parametrize(
    "finding",
    [
        {"kind": "layout", "what": "The image is read in another layout."},
        {"kind": "suspicious-gain", "what": "It is too good.", "evidence": {"statistical": True}},
    ],
)
def test_findings_that_nothing_shows(bundle: Path, finding: dict[str, Any]) -> None:
    record = read_json(bundle / CERTIFICATE)
    known = {"layers": [], "evidence": {}, "severity": "warning", "title": "x", "remedy": "x"}
    write_sealed(bundle / CERTIFICATE, {**record, "findings": [{**known, **finding}]})
    assert edgetl.check(bundle) is not None


def test_a_field_more(bundle: Path) -> None:
    write_sealed(bundle / CERTIFICATE, {**read_json(bundle / CERTIFICATE), "approved_by": "somebody"})
    assert "it holds 'approved_by', which no certificate holds" in str(edgetl.check(bundle))


def certified_again(bundle: Path, change: Callable[[dict[str, Any]], None]) -> str | None:
    """Change the saved predictions, make a certificate that follows from them, and check that."""
    saved = Predictions.load(bundle / PREDICTIONS)
    names = ("task", "labels", "models", "paths", "sha256", "class_names", "reference_logits", "deployed_logits")
    fields = {name: getattr(saved, name) for name in (*names, "baseline", "evidence")}
    fields["models"] = {name: dict(answers) for name, answers in saved.models.items()}
    change(fields)
    Predictions(**fields).save(bundle / PREDICTIONS)
    record = read_json(bundle / CERTIFICATE)
    record["hashes"]["predictions"] = sha256_file(bundle / PREDICTIONS)
    write_sealed(bundle / CERTIFICATE, record)
    edgetl.verify(bundle)
    return edgetl.check(bundle)


def _labels(fields: dict[str, Any]) -> None:
    """What the deployed model says is the truth."""
    fields["labels"] = (fields["labels"] + 1) % 3


def _reference(fields: dict[str, Any]) -> None:
    """A trained model that was worse than it was."""
    fields["models"]["reference"] = {"class": (fields["labels"] + 1) % 3}
    fields["reference_logits"] = fields["evidence"] = None


def _float_rung(fields: dict[str, Any]) -> None:
    fields["models"]["float ONNX"] = {"class": (fields["labels"] + 1) % 3}


def _deployed(fields: dict[str, Any]) -> None:
    """Classes that its own logits do not give."""
    fields["models"]["deployed"] = {"class": (fields["models"]["deployed"]["class"] + 1) % 3}


def _hashes(fields: dict[str, Any]) -> None:
    """Other pictures than those of the certify split."""
    fields["sha256"] = tuple(digest[::-1] for digest in fields["sha256"])


def _fewer(fields: dict[str, Any]) -> None:
    """The samples that suit."""
    fields.update({name: fields[name][:5] for name in ("labels", "paths", "sha256")})
    fields["models"] = {n: {k: v[:5] for k, v in a.items()} for n, a in fields["models"].items()}
    fields["reference_logits"] = fields["deployed_logits"] = fields["evidence"] = None


def _classes(fields: dict[str, Any]) -> None:
    fields["class_names"] = tuple(reversed(fields["class_names"]))


@pytest.mark.parametrize("change", [_labels, _reference, _float_rung, _deployed, _hashes, _fewer, _classes])
def test_predictions_that_are_not_the_bundles(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A certificate that follows from made-up predictions is none."""
    problem = certified_again(bundle, change)
    assert problem is not None
    assert "predictions.npz" in problem


def test_what_nobody_can_work_out_again_is_a_claim(bundle: Path) -> None:
    """Another deployed model's answers, logits and all: only running it, or a signature, tells."""

    def change(fields: dict[str, Any]) -> None:
        logits = np.array(fields["reference_logits"])[:, [1, 2, 0]]
        fields["deployed_logits"], fields["evidence"] = logits, None
        fields["models"]["deployed"] = {"class": logits.argmax(axis=1)}

    assert certified_again(bundle, change) is None
    assert "the deployed model's answers" in audit(bundle).claimed


def test_signed_nothing_is_taken_on_trust(bundle: Path, tmp_path: Path, edgetl: Cli) -> None:
    pytest.importorskip("cryptography", reason="edgetl[sign] makes signatures")
    from tests.devices.test_signatures import write_keys

    key = write_keys(tmp_path, "own")
    plain = json.loads(edgetl("verify", bundle, "--check", "--json").stdout)
    assert (plain["belongs"], plain["signed_by"]) == (True, None)
    assert "Nobody signed it. A seal is no signature" in plain["trust"]
    assert edgetl("sign", bundle, "--key", key).returncode == 0
    unchecked = json.loads(edgetl("verify", bundle, "--check", "--json").stdout)
    assert "has a signature, which --public-key would check" in unchecked["trust"]
    checked = edgetl("verify", bundle, "--check", "--public-key", tmp_path / "own.pub")
    assert checked.returncode == 0, checked.stderr
    assert "All of it is signed by the key" in checked.stdout
    assert load_bundle(bundle, tmp_path / "own.pub").signed_by
    page = tmp_path / "report.html"
    assert edgetl("report", bundle, "--out", page).returncode == 0
    assert "It has a signature, which was not checked for this page" in page.read_text()


def test_the_report_says_that_a_seal_is_no_signature(bundle: Path, tmp_path: Path) -> None:
    page = edgetl.report(bundle, tmp_path / "report.html").read_text()
    assert "That seal is no signature: nobody vouches for it" in page


def test_an_honest_certificate_on_other_terms_follows_too(bundle: Path) -> None:
    for terms in ({"margin": 0.2}, {"metric": "balanced-accuracy", "margin": 0.1}, {"margin": 0.3, "alpha": 0.01}):
        assert isinstance(edgetl.verify(bundle, **terms), Certificate)  # type: ignore[call-overload]
        assert edgetl.check(bundle) is None, terms
