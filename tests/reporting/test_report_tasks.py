"""The page, the table and the console for bundles of every task: names and units are those of the record."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgetl.base.errors import BundleError
from edgetl.base.storage import sha256_file, write_json
from edgetl.base.wording import number
from edgetl.certify import certify_answers
from edgetl.certify.facts import Facts
from edgetl.certify.predictions import Predictions
from edgetl.core.bundle import CERTIFICATE, PREDICTIONS, Artifact, Bundle, load_bundle, write_manifest
from edgetl.core.manifest import Manifest
from edgetl.core.targets import find_target
from edgetl.reporting import metrics
from edgetl.reporting.console import print_results
from edgetl.reporting.outcome import print_certificate
from edgetl.reporting.summary import rows
from edgetl.reporting.terms import noun
from edgetl.tasks import find_task

from .page import CHROMIUM, Page, in_chromium
from .samples import INPUTS, WORDS, write_samples

pytest.importorskip("jinja2", reason="the page needs jinja2 (pip install 'edgetl[report]')")
from edgetl.reporting.html import render, write_report

N = 400
SPECIES = ("cat", "dog", "<b>owl</b>")
Make = Callable[[Path], Bundle]


def certified(root: Path, task: str, kind: str, labels: list[Any], outputs: dict[str, np.ndarray], name: str) -> Bundle:
    """A bundle without a model: samples, predictions and the certificate that follows from them.

    ``outputs`` are those of the reference, the float ONNX file and the deployed model on the certify split.
    """
    found, folder = find_task(task), root / task
    classes = () if found.labels == "number" else SPECIES
    data = write_samples(root / f"{task}-files", kind, labels, classes, found.labels)
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.onnx").write_bytes(b"\x10\x01" * 18_000)
    write_json(folder / "labels.json", list(classes))
    write_json(folder / "splits.json", data.to_json())
    write_json(folder / "preprocess.json", INPUTS[kind])
    artifact = Artifact("onnxruntime", folder / "model" / "model.onnx", "int8")
    write_manifest(folder, Manifest(target=find_target("x86-generic"), task=task), {"deployed": artifact})
    bundle, samples = load_bundle(folder), data.split("certify")
    saved = Predictions.from_outputs(
        found,
        labels=data.labels("certify"),
        outputs={model: {name: values} for model, values in outputs.items()},
        paths=[sample.path for sample in samples],
        sha256=[sample.sha256 for sample in samples],
        classes=classes,
    )
    saved.save(bundle.path / PREDICTIONS)
    hashes = {"predictions": sha256_file(bundle.path / PREDICTIONS), "splits": data.digest}
    facts = Facts(runtime="onnxruntime 1.32", isa="x86-64", precision="int8", hashes=hashes,
                  sample=noun(kind))  # fmt: skip
    bundle.write_record(CERTIFICATE, certify_answers(**saved.arguments(), facts=facts).to_json())
    return bundle


def regression(root: Path) -> Bundle:
    rng = np.random.default_rng(0)
    labels = rng.normal(11, 4, N)
    truth = labels[4::5]
    before = truth + rng.normal(0, 1, len(truth))
    after = before + rng.normal(0, 1.5, len(truth))
    after[7] = truth[7] + 30
    models = {"reference": before, "float ONNX": before, "deployed": after}
    outputs = {model: values.astype(np.float32)[:, None] for model, values in models.items()}
    return certified(root, "regression", "tensor", labels.tolist(), outputs, "values")


def multi_label(root: Path) -> Bundle:
    rng = np.random.default_rng(1)
    truth = rng.random((N, 3)) < 0.5
    before = np.where(truth[4::5], 2.0, -2.0) + rng.normal(0, 1.2, (N // 5, 3))
    models = {"reference": before, "float ONNX": before, "deployed": before + rng.normal(0, 0.3, before.shape)}
    outputs = {model: values.astype(np.float32) for model, values in models.items()}
    labels = [tuple(np.flatnonzero(row).tolist()) for row in truth]
    return certified(root, "multi-label", "image", labels, outputs, "logits")


def text(root: Path) -> Bundle:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, N)
    before = 3 * np.eye(3)[labels[4::5]] + rng.normal(0, 1, (N // 5, 3))
    models = {"reference": before, "float ONNX": before, "deployed": before + rng.normal(0, 1.5, before.shape)}
    outputs = {model: values.astype(np.float32) for model, values in models.items()}
    return certified(root, "text-classification", "text", labels.tolist(), outputs, "logits")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    root = tmp_path_factory.mktemp("tasks")
    return {"regression": regression(root), "multi-label": multi_label(root), "text": text(root)}


def certificate(bundle: Bundle) -> Any:
    found = bundle.certificate
    assert found is not None
    return found


def test_regression_speaks_of_errors_in_the_labels_unit(bundles: dict[str, Bundle]) -> None:
    page, found = Page(render([bundles["regression"]])), certificate(bundles["regression"])
    score = found.scores["mae"]
    assert (
        f"On {N // 5} held-out arrays the mean absolute error of the trained model is {score.reference:.4g}"
        in page.text
    )
    assert f"a loss of {-score.difference:.4g}, interval of the gain −{-score.ci_low:.4g} to" in page.text
    for title in ("mean absolute error (decides)", "root mean square error", "R²"):
        assert title in page.text
    assert "Recall by" not in page.text
    assert "accuracy" not in page.text.lower()
    assert "images" not in page.text
    assert len(page.all("svg", "level")) == 0


def test_regression_shows_the_errors_that_grew_most(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["regression"]
    page, sample = Page(render([bundle])), bundle.dataset.split("certify")[7]
    assert "Arrays whose error grew" in page.text
    alts = [a["alt"] or "" for a in page.all("img")]
    assert len(alts) == 24
    assert alts[0].startswith(f"worsened {sample.path}: true {number(float(sample.label))}; before ")
    grown = [float(alt.split("error grew by ")[1].replace(",", "")) for alt in alts]
    assert grown == sorted(grown, reverse=True)
    assert "The largest growth first (" in page.text


def test_multi_label_shows_label_sets_and_recall_by_label(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["multi-label"]
    page, found = Page(render([bundle])), certificate(bundle)
    score = found.scores["macro-AP"]
    assert f"the macro average precision of the trained model is {100 * score.reference:.2f} %" in page.text
    assert "points" in page.text
    assert "Recall by label" in page.text
    assert "Images lost and gained" in page.text
    lost, gained = found.flips["lost"], found.flips["gained"]
    assert f"Lost: right before, wrong after ({lost})" in page.text
    assert (len(page.all("figure", "lost")), len(page.all("figure", "gained"))) == (lost, gained)
    saved = Predictions.load(bundle.path / PREDICTIONS)
    first = int(saved.lost[0])
    said = (saved.labels, saved.models["reference"]["present"], saved.models["deployed"]["present"])
    names = [", ".join(SPECIES[i] for i in np.flatnonzero(row[first])) or "none" for row in said]
    alt = page.all("img")[0]["alt"] or ""
    assert alt == f"lost {saved.paths[first]}: true {names[0]}; before {names[1]}; after {names[2]}"


def test_texts_are_shown_as_texts_and_called_so(bundles: dict[str, Bundle]) -> None:
    html = render([bundles["text"]])
    page, found = Page(html), certificate(bundles["text"])
    assert f"On {N // 5} held-out texts the trained model is right on" in page.text
    assert "Texts lost and gained" in page.text
    assert "image" not in page.text.lower()
    assert len(page.all("p", "words")) == found.flips["lost"] + found.flips["gained"] > 0
    assert WORDS in page.text
    assert "<script" not in html
    assert "Probabilities" in page.text
    assert "of the texts before and" in page.text


def test_bundles_of_several_tasks_share_a_page_and_a_table(bundles: dict[str, Bundle]) -> None:
    page = Page(render(list(bundles.values())))
    assert len(page.all("section", "bundle")) == 3
    stream = io.StringIO()
    print_results(Console(file=stream, width=100), rows(bundles.values()))
    shown = stream.getvalue()
    assert "Score" in shown.splitlines()[0]
    for name in ("MAE", "macro-AP", "accuracy"):
        assert name in shown
    found = certificate(bundles["regression"])
    assert f"−{-found.ci_low:.4g}…" in shown
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["regression", "multi-label", "text"])
def test_a_certificate_fits_a_terminal(bundles: dict[str, Bundle], name: str) -> None:
    stream, found = io.StringIO(), certificate(bundles[name])
    print_certificate(Console(file=stream, width=80, highlight=False), found)
    shown = stream.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for metric in find_task(found.task).metrics:
        assert metrics.short(found.task, metric) in shown
    assert ("divergence" if found.task != "text-classification" else "KL") in shown


@pytest.mark.parametrize("name", ["regression", "multi-label"])
def test_predictions_of_another_task_are_refused(bundles: dict[str, Bundle], tmp_path: Path, name: str) -> None:
    bundle = bundles[name]
    kept = (bundle.path / PREDICTIONS).read_bytes()
    other = bundles["multi-label" if name == "regression" else "regression"]
    try:
        (bundle.path / PREDICTIONS).write_bytes((other.path / PREDICTIONS).read_bytes())
        with pytest.raises(BundleError, match=r"predictions\.npz (is damaged|holds no predictions)"):
            render([bundle])
    finally:
        (bundle.path / PREDICTIONS).write_bytes(kept)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not rendered")
def test_pages_of_every_task_render_in_chromium(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    page = write_report(list(bundles.values()), tmp_path / "report.html")
    rendered = Page(in_chromium(page, tmp_path / "profile"))
    assert len(rendered.all("section", "bundle")) == 3
    assert len(rendered.all("figure", "worsened")) == 24
