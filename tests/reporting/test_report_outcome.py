"""A certificate on the terminal."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgetl.base.storage import sealed
from edgetl.certify import certify, certify_scores
from edgetl.core.certificate import Certificate
from edgetl.core.findings import KINDS
from edgetl.reporting.outcome import print_certificate


def shown(certificate: Certificate | dict[str, Any], width: int = 80, **options: Any) -> str:
    stream = io.StringIO()
    record = certificate if isinstance(certificate, Certificate) else Certificate.from_json(sealed(certificate))
    print_certificate(Console(file=stream, width=width, highlight=False, **options), record)
    return stream.getvalue()


def test_everything_that_matters_fits_80_columns(full: dict[str, Any]) -> None:
    text = shown(full)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert words.startswith("fail With 95 % confidence the deployed model loses more than 1 point of accuracy.")
    assert "On 1,240 held-out images the trained model is right on 99.76 %" in words
    assert "Executed: on the host (onnxruntime 1.32.0 int8 x86-64)." in words
    assert f"fatal {KINDS['calibration-overlap'].title}: 3 of 64 calibration images" in words
    assert f"remedy: {KINDS['calibration-overlap'].remedy}" in words
    assert "remedy: let export repair it, or leave them in float" in words
    assert "8 trials were made in 6.88 of 20.0 minutes" in words
    assert "The deployed model keeps" in words
    assert "calibration error" in words
    assert "Compression hurts more off distribution" in words


def test_ladder_marks_the_first_divergence(full: dict[str, Any]) -> None:
    lines = shown(full).splitlines()
    (diverging,) = [line for line in lines if line.startswith("Q/DQ in float")]
    assert diverging.split()[-1] == "first"
    (deployed,) = [line for line in lines if line.startswith("deployed   ")]
    assert deployed.split()[1:] == ["93.95", "%", "99.60", "%", "+0.08", "0.0214", "0.000258"]


def test_the_worst_layers_and_every_trial_are_there(full: dict[str, Any]) -> None:
    text = shown(full, 160)
    (second,) = [line for line in text.splitlines() if line.startswith("blocks.1.1.conv_dw")]
    assert second.split()[1:] == ["activations", "3.3", "19.2", "%"]
    assert "noisiest of 30 layers" in text
    assert text.count("conv_") <= 5 + 8
    for index, trial in enumerate(full["repair"]["trials"], 1):
        (row,) = [line for line in text.splitlines() if line.startswith(f"{index} ") and trial["remedy"] in line]
        assert (trial["change"] or trial["note"]) in row
        assert row.startswith(f"{index} kept") == trial["kept"]


def test_a_finding_is_said_once(full: dict[str, Any]) -> None:
    assert any(reason.startswith(full["findings"][0]["what"]) for reason in full["reasons"])
    assert " ".join(shown(full).split()).count(full["findings"][0]["what"]) == 1


def test_verdict_and_severities_are_coloured_on_a_terminal(full: dict[str, Any]) -> None:
    text = shown(full, force_terminal=True, color_system="standard")
    assert "\x1b[1;31mfail\x1b[0m" in text
    assert "\x1b[1;31mfatal  \x1b[0m" in text
    assert "\x1b[1;33mwarning\x1b[0m" in text
    assert "\x1b" not in shown(full)


def test_a_plain_certificate_is_short() -> None:
    labels = np.arange(3000) % 3
    text = shown(certify(labels, labels, labels), 200)
    assert text.startswith("pass  With 95 % confidence the deployed model loses less than 1 point of accuracy")
    assert "remedy" not in text
    assert "noisiest" not in text
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize("metric", ["mae", "rmse", "r2"])
def test_regression_is_told_in_its_own_unit(metric: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    before, after = (truth + rng.normal(0, scale, 400) for scale in (0.1, 0.3))
    found = certify_scores(before, after, truth, metric=metric, margin=0.01)
    text = " ".join(shown(found, 200).split())
    name = {"mae": "mean absolute error", "rmse": "root mean square error", "r2": "R²"}[metric]
    score = found.scores[metric]
    both = f"the {name} of the trained model is {score.reference:.4g} and that of the deployed one {score.deployed:.4g}"
    assert f"On 400 held-out samples {both}: a {'difference of −' if metric == 'r2' else 'loss of '}0." in text
    assert "point" not in text
    assert f"loses more than 0.01 of {name}" in text


def test_balanced_accuracy_is_named_where_it_decides(full: dict[str, Any]) -> None:
    labels = np.arange(600) % 2
    found = certify(labels, np.where(np.arange(600) % 5 == 0, 0, labels), labels, metric="balanced-accuracy")
    text = " ".join(shown(found).split())
    assert "more than 1 point of balanced accuracy" in text
    assert "the balanced accuracy of the trained model is 100.00 % and that of the deployed one 90.00 %" in text
    assert "balanced-accuracy 100.00 % 90.00 % −10.00" in text


def test_control_characters_are_harmless(full: dict[str, Any], hostile: str) -> None:
    layers = [{**full["layers"][0], "module": "[red]x\x1b[2J"}]
    text = shown({**full, "layers": layers, "reasons": ["a\x1b]0;b"]})
    assert "\x1b" not in text
    assert "[red]x\ufffd[2J" in text
    assert hostile in shown(full, 200)
