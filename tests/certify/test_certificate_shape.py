"""A sealed certificate of a wrong shape is bad input, whatever is wrong with it: one line, and never a bug."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetl
from edgetl.base.errors import CertifyError, EdgetlError
from edgetl.base.schema import from_json
from edgetl.base.storage import read_json, sealed, write_sealed
from edgetl.certify import Baseline, Certificate, certify
from edgetl.core.certificate_parts import Robustness
from edgetl.core.findings import Finding
from tests.certify.test_findings_certified import LAYERS, REPAIR, ROBUSTNESS, flipped

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle"
#: What stands in a field's place, of every kind that JSON has.
WRONG: tuple[Any, ...] = (None, True, -0.5, "text", [[]], {"name": {}})
#: One of several that are alike.
ALIKE = {("classes", name) for name in "bcd"} | {("scores", "balanced-accuracy")}


@functools.cache
def full() -> dict[str, Any]:
    """A record in which every field holds something."""
    reference, deployed, labels = flipped(lost=30, gained=20)
    logits = {name: 3 * np.eye(4)[values] for name, values in (("reference", reference), ("deployed", deployed))}
    return certify(
        reference, deployed, labels, tuple("abcd"),
        rungs=[("float ONNX", reference)], logits={**logits, "float ONNX": logits["reference"]},
        baseline=Baseline("probe", np.zeros_like(labels)), findings=[Finding("saturation", "s", ("a",), {"count": 3})],
        layers=LAYERS, robustness=from_json(Robustness, ROBUSTNESS, "here"), repair=REPAIR,
        executed_on={"device": "board"}, hashes={"model": "a" * 64},
    ).to_json()  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value in a record, the first entry of each list alone."""
    if path in ALIKE:
        return
    if path:
        yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in steps:
        yield from places(inner, (*path, key))


def changed(record: dict[str, Any], path: tuple[Any, ...], new: Any) -> dict[str, Any]:
    """The record, sealed again, with another value at ``path``; without any where ``new`` is ``...``."""
    edited = {**record, path[0]: copy.deepcopy(record[path[0]])}
    inner: Any = edited
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return sealed(edited)


def used(certificate: Certificate) -> None:
    """What is done with a certificate that was read."""
    certificate.sentence()
    json.dumps(certificate.to_json(), allow_nan=False)


def test_every_change_of_any_field_is_read_or_refused_in_one_line() -> None:
    record, tried = full(), 0
    refused: list[EdgetlError] = []
    for path in places({key: value for key, value in record.items() if key != "digest"}):
        for new in (..., *WRONG):
            tried += 1
            try:
                used(Certificate.from_json(changed(record, path, new)))
            except EdgetlError as error:
                refused.append(error)
    assert tried > 1200
    assert len(refused) > tried / 2
    assert not any("\n" in str(error) for error in refused)
    assert {error.exit_status for error in refused} == {2}


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        (("n",), "many", 'n is "many", not a whole number'),
        (("n",), True, "n is true, not a whole number"),
        (("ladder", 1, "accuracy"), ..., "ladder[1].accuracy is missing"),
        (("classes", "a", "p"), [], "classes.a.p is a list, not a number"),
        (("findings", 0, "layers"), "a", 'findings[0].layers is "a", not a list'),
        (("findings", 0, "kind"), "bad luck", "unknown kind of fault"),
        (("repair", "trials"), {}, "repair.trials is an object, not a list"),
        (("layers", 0, "sqnr_db"), "loud", 'layers[0].sqnr_db is "loud", not a number'),
        (("robustness", "rows", 0), None, "robustness.rows[0] is null, not an object"),
        (("metric",), "mae", "there is no score of its metric 'mae'"),
        (("flips",), {}, "it has accuracies without flips"),
        (("task",), 5, "task is 5, not a string"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(path: tuple[Any, ...], new: Any, message: str) -> None:
    with pytest.raises(EdgetlError) as caught:
        Certificate.from_json(changed(full(), path, new), "certificate.json")
    assert message in str(caught.value)


@pytest.mark.parametrize("path", [("ladder",), ("scores", "accuracy", "difference"), ("reasons",)])
def test_a_bundle_with_such_a_certificate_is_bad_input(path: tuple[Any, ...], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(GOLDEN, tmp_path / "bundle"))
    write_sealed(bundle / "certificate.json", changed(read_json(bundle / "certificate.json"), path, "no"))
    with pytest.raises(CertifyError, match=r"certificate\.json: .* is .no., not .*: delete it, then make it again"):
        edgetl.verify(bundle)
