"""Certifying a bundle: the rungs of its ladder, answers from elsewhere, other terms, and edits that are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import edgetl
from edgetl.base.errors import BundleError, CertifyError, EdgetlError
from edgetl.base.storage import sealed, write_json
from edgetl.core.bundle import CERTIFICATE, PREDICTIONS, load_bundle, write_manifest
from edgetl.core.compression import RepairRecord, TrialRecord
from edgetl.core.run import WEIGHTS, load_run, write_run
from tests.cores import in_core

Edgetl = Callable[..., object]


@pytest.fixture(scope="module")
def quantized(tiny_run: Path) -> Path:
    """Three int8 bundles of the tiny run, as the recipes give them."""
    out = tiny_run.parent / "quantized"
    edgetl.export(tiny_run, targets=["x86-generic", "intel-cpu", "jetson"], out=out, bench=False, repair=False)
    return out


@pytest.fixture
def bundle(quantized: Path, tmp_path: Path) -> Path:
    """A copy of the ONNX Runtime bundle, to be altered, with the note of where its samples lie."""
    (tmp_path / ".work").mkdir()
    shutil.copy(quantized / ".work/data.json", tmp_path / ".work")
    return Path(shutil.copytree(quantized / "x86-generic", tmp_path / "bundle"))


def certificate(bundle: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads((bundle / CERTIFICATE).read_text())
    return record


@pytest.mark.parametrize(
    ("target", "between"),
    [("x86-generic", ["Q/DQ in float"]), ("intel-cpu", ["Q/DQ in float"]), ("jetson", [])],
)
def test_the_ladder_goes_from_torch_to_what_runs(quantized: Path, target: str, between: list[str]) -> None:
    """What this machine only simulates is its Q/DQ graph in float already."""
    ladder = certificate(quantized / target)["ladder"]
    assert isinstance(ladder, list)
    assert [rung["name"] for rung in ladder] == ["reference", "float ONNX", *between, "deployed"]
    assert ladder[1]["agreement"] == 1.0
    assert ladder[1]["logit_distance"] < 1e-3
    assert all(rung["logit_distance"] >= 0 for rung in ladder[2:])


CORE = """
import json
import edgetl
from edgetl.cli import run

bundle, data, trained, out = sys.argv[1:]
assert run(["verify", bundle, "--data", data, "--quiet"]) in (0, 3, 4)
assert run(["verify", bundle, "--check", "--quiet"]) == 0
try:
    edgetl.export(trained, targets="x86-generic", out=out)
except edgetl.EdgetlError as error:
    print(error, file=sys.__stderr__)
assert not missing & set(sys.modules)
"""


def test_a_core_installation_certifies_samples(quantized: Path, bundle: Path, tiny_run: Path, tmp_path: Path) -> None:
    """With numpy and a runtime alone: the same verdict, and a word on what could not be looked into."""
    out = tmp_path / "out"
    done = in_core(CORE, bundle, tiny_run.parent / "photos", tiny_run, out, home=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.splitlines()[-1].endswith("which is not installed: pip install 'edgetl[train]'")
    assert not out.exists()
    whole, core = certificate(quantized / "x86-generic"), certificate(bundle)
    same = ("verdict", "difference", "ci_low", "ci_high", "scores", "ladder", "hashes", "n")
    assert {name: core[name] for name in same} == {name: whole[name] for name in same}
    told, unread = ([f["kind"] for f in record["findings"]] for record in (whole, core))  # type: ignore[attr-defined]
    assert unread == [*(kind for kind in told if kind in unread), "graphs-not-read"]
    assert edgetl.check(bundle) is None, "the whole installation agrees"


def test_a_float_bundle_has_no_quantized_rung(tiny_bundle: Path) -> None:
    ladder = certificate(tiny_bundle)["ladder"]
    assert isinstance(ladder, list)
    assert [rung["name"] for rung in ladder] == ["reference", "float ONNX", "deployed"]
    assert load_bundle(tiny_bundle).layers == ()


def test_an_int8_bundle_knows_what_quantization_does_to_each_layer(quantized: Path) -> None:
    for target in ("x86-generic", "intel-cpu", "jetson"):
        opened = load_bundle(quantized / target)
        assert opened.exported.is_file()
        assert opened.layers
        assert all(layer.cause in ("weights", "activations") for layer in opened.layers)
        shares = [layer.share for layer in opened.layers]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0, abs=1e-6)


def answers(bundle: Path) -> tuple[np.ndarray, list[str], list[str]]:
    opened = load_bundle(bundle)
    samples = opened.dataset.split("certify")
    with np.load(bundle / "reference.npz") as stored:
        logits = stored["reference.logits"]
    return logits, [s.sha256 for s in samples], [s.path for s in samples]


@pytest.mark.parametrize("key", ["sha256", "paths"])
def test_answers_of_a_program_of_ones_own(bundle: Path, tmp_path: Path, key: str) -> None:
    logits, hashes, paths = answers(bundle)
    order = np.random.default_rng(0).permutation(len(logits))
    names = np.array(hashes if key == "sha256" else paths)
    np.savez(tmp_path / "mine.npz", logits=logits[order], **{key: names[order]})
    found = edgetl.verify(bundle, predictions=tmp_path / "mine.npz", margin=0.3)
    assert found.flips == {"lost": 0, "gained": 0}
    assert found.executed == "claimed"
    assert "mine.npz" in found.runtime
    assert "whose answers edgetl was given" in found.sentence()
    assert "on the device" not in found.sentence()
    assert [rung.name for rung in found.ladder] == ["reference", "float ONNX", "deployed"]


def test_answers_that_lack_an_image_are_refused(bundle: Path, tmp_path: Path) -> None:
    logits, hashes, _ = answers(bundle)
    np.savez(tmp_path / "few.npz", logits=logits[1:], sha256=np.array(hashes[1:]))
    before = (bundle / CERTIFICATE).read_bytes()
    with pytest.raises(CertifyError, match="lacks 1 of the"):
        edgetl.verify(bundle, predictions=tmp_path / "few.npz")
    (tmp_path / "none.npz").write_bytes(b"no zip")
    with pytest.raises(CertifyError, match="holds no predictions"):
        edgetl.verify(bundle, predictions=tmp_path / "none.npz")
    assert (bundle / CERTIFICATE).read_bytes() == before


def test_two_answers_for_one_image_are_refused(bundle: Path, tmp_path: Path) -> None:
    """The same answer twice says nothing new; another one would leave the choice to whoever reads the file."""
    logits, hashes, _ = answers(bundle)
    twice, names = np.concatenate([logits, logits[:1]]), np.array([*hashes, hashes[0]])
    np.savez(tmp_path / "mine.npz", logits=twice, sha256=names)
    assert edgetl.verify(bundle, predictions=tmp_path / "mine.npz", margin=0.3).n == len(logits)
    twice[-1] = twice[-1, ::-1]
    np.savez(tmp_path / "mine.npz", logits=twice, sha256=names)
    with pytest.raises(CertifyError, match=rf"answers the sample '{hashes[0]}' twice, and not alike \(rows 0 and"):
        edgetl.verify(bundle, predictions=tmp_path / "mine.npz")


def test_a_bundle_carries_its_target(
    quantized: Path, tmp_path: Path, edgetl: Edgetl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It verifies, runs, benches, reports and deploys where nobody knows a target of that name."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "releases"))
    renamed = Path(shutil.copytree(quantized / "x86-generic", tmp_path / "bundle"))
    (tmp_path / ".work").mkdir()
    shutil.copy(quantized / ".work/data.json", tmp_path / ".work")
    opened = load_bundle(renamed)
    target = replace(opened.manifest.target, name="our-board", aliases=())
    for name in (CERTIFICATE, "predictions.npz"):
        (renamed / name).unlink()
    write_manifest(
        renamed,
        replace(opened.manifest, target=target),
        {role: opened.artifact(role) for role in opened.manifest.artifacts},
    )
    image = opened.dataset.paths("certify")[0]
    words: list[tuple[object, ...]] = [
        ("verify", renamed, "--margin", "0.3"),
        ("predict", renamed, image),
        ("bench", renamed, "--duration", "0.1"),
        ("report", renamed, "--out", tmp_path / "report.html"),
        ("deploy", renamed, "--device", "local", "--force"),
    ]
    for command in words:
        done = edgetl(*command, "--quiet") if command[0] != "report" else edgetl(*command)
        assert done.returncode in (0, 3, 4), done.stderr  # type: ignore[attr-defined]
        assert "unknown target" not in done.stderr  # type: ignore[attr-defined]
    assert (renamed / "bench.json").is_file()


def test_a_runner_that_sorts_its_classes_otherwise_is_named(bundle: Path, tmp_path: Path) -> None:
    logits, hashes, _ = answers(bundle)
    np.savez(tmp_path / "mine.npz", logits=logits[:, [1, 2, 0]], sha256=np.array(hashes))
    found = edgetl.verify(bundle, predictions=tmp_path / "mine.npz")
    assert found.verdict == "fail"
    fatal = [finding.kind for finding in found.findings if finding.severity == "fatal"]
    assert fatal == ["label-order"]
    assert "quantization-noise" not in {finding.kind for finding in found.findings}


def test_judging_again_by_another_metric_needs_no_inference(bundle: Path) -> None:
    shutil.rmtree(bundle / "model")
    shutil.copytree(bundle, bundle.parent / "without-model")
    with pytest.raises(BundleError):
        edgetl.verify(bundle, metric="balanced-accuracy")


def test_judged_again_everything_is_as_it_was(bundle: Path) -> None:
    before = certificate(bundle)
    again = edgetl.verify(bundle)
    assert again.to_json() == {k: v for k, v in before.items() if k != "manifest"} | {"digest": again.digest}
    balanced = edgetl.verify(bundle, metric="balanced-accuracy", margin=0.5)
    assert (balanced.metric, balanced.margin) == ("balanced-accuracy", 0.5)
    assert balanced.findings == again.findings
    assert balanced.ladder == again.ladder


def test_an_unknown_metric_is_refused_before_any_work(tiny_run: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="metric"):
        edgetl.verify(bundle, metric="f1")
    with pytest.raises(EdgetlError, match="metric"):
        edgetl.export(tiny_run, targets=["x86-generic"], out=tmp_path / "out", metric="f1")
    with pytest.raises(EdgetlError, match="budget"):
        edgetl.export(tiny_run, targets=["x86-generic"], out=tmp_path / "out", budget_minutes=0.0)
    assert not (tmp_path / "out").exists()


def test_an_edited_number_is_refused(bundle: Path) -> None:
    record = certificate(bundle)
    (bundle / CERTIFICATE).write_text(json.dumps({**record, "deployed_accuracy": 1.0}))
    assert "altered" in (edgetl.check(bundle) or "")
    with pytest.raises(EdgetlError, match="altered"):
        edgetl.verify(bundle, margin=0.2)


def test_an_edited_number_under_a_new_seal_is_refused_by_the_command(bundle: Path, edgetl: Edgetl) -> None:
    """Whoever seals a made-up certificate again does not make it follow from the predictions."""
    record = {k: v for k, v in certificate(bundle).items() if k != "digest"}
    write_json(bundle / CERTIFICATE, sealed({**record, "verdict": "pass", "deployed_accuracy": 1.0}))
    done = edgetl("verify", bundle, "--check", "--json")
    assert done.returncode == 3  # type: ignore[attr-defined]


def test_edited_predictions_are_refused(bundle: Path) -> None:
    data = bytearray((bundle / PREDICTIONS).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / PREDICTIONS).write_bytes(bytes(data))
    assert edgetl.check(bundle) is not None
    with pytest.raises(EdgetlError):
        edgetl.verify(bundle, margin=0.2)


def test_a_certificate_of_another_bundle_is_refused(bundle: Path, quantized: Path) -> None:
    shutil.copy(quantized / "intel-cpu" / CERTIFICATE, bundle / CERTIFICATE)
    assert "another bundle" in (edgetl.check(bundle) or "")


def test_corruptions_are_tested_in_pairs(bundle: Path) -> None:
    found = edgetl.verify(bundle, corruptions=True, margin=0.3)
    assert found.robustness is not None
    rows = found.robustness.rows
    assert {row.corruption for row in rows} >= {"noise", "jpeg", "brightness", "contrast"}
    assert {row.severity for row in rows} == {1, 2, 3, 4, 5}
    assert all(row.n == found.n for row in rows)
    assert edgetl.verify(bundle, margin=0.2).robustness == found.robustness


def test_a_reference_that_is_not_what_was_trained_fails_whatever_the_accuracies(tiny_run: Path, tmp_path: Path) -> None:
    """Weights replaced under a new seal: reference and deployed model agree, and both are wrong."""
    trained = load_run(tiny_run)
    tensors = safetensors.numpy.load_file(trained.weights)
    (tmp_path / "run").mkdir()
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = np.ascontiguousarray(np.roll(tensors[name], 1, axis=0))
    safetensors.numpy.save_file(tensors, tmp_path / "run" / WEIGHTS)
    write_run(
        tmp_path / "run",
        backbone=trained.backbone,
        strategy=trained.strategy,
        dataset=trained.dataset,
        input_record=trained.input_record,
        settings=trained.settings,
        metrics=trained.metrics,
        lineage=trained.lineage,
    )
    (done,) = edgetl.export(
        tmp_path / "run", targets=["x86-generic"], precision="fp32", out=tmp_path / "out", margin=0.5, bench=False
    )
    assert done.certificate.flips == {"lost": 0, "gained": 0}
    assert done.certificate.verdict == "fail"
    assert [finding.kind for finding in done.certificate.findings] == ["reference-not-reproduced"]


def test_the_baseline_reaches_the_certificate(edgetl: Edgetl, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    settings = load_run(tiny_run).settings
    options = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", 32, "--epochs", 3)
    again = edgetl("finetune", settings["data"], "--out", tmp_path / "run", *options, "--baseline", "probe", "--quiet")
    assert again.returncode == 0, again.stderr  # type: ignore[attr-defined]
    out = tmp_path / "out"
    done = edgetl("export", tmp_path / "run", "--target", "x86-generic", "--precision", "fp32", "--out", out, "--json")
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    record = certificate(out / "x86-generic")
    gain = record["transfer_gain"]
    assert isinstance(gain, dict)
    assert gain["kind"] == "probe"
    assert record["transfer_gain_retained"] == gain["retained"]
    assert gain["gap_ci_low"] <= gain["gap"] <= gain["gap_ci_high"]


def test_the_command_prints_the_ladder_and_the_findings(edgetl: Edgetl, bundle: Path, tmp_path: Path) -> None:
    logits, hashes, _ = answers(bundle)
    np.savez(tmp_path / "mine.npz", logits=logits[:, [1, 2, 0]], sha256=np.array(hashes))
    done = edgetl("verify", bundle, "--predictions", tmp_path / "mine.npz", "--quiet")
    assert done.returncode == 3  # type: ignore[attr-defined]
    assert "order" in done.stdout  # type: ignore[attr-defined]
    assert "float ONNX" in done.stdout  # type: ignore[attr-defined]


def test_what_could_not_be_mended_is_refused_until_more_is_tolerated(bundle: Path) -> None:
    """A bundle whose climb ended without success, sealed as an export seals it."""
    opened = load_bundle(bundle)
    trial = TrialRecord(remedy="default", score=0.5, difference=-0.2, expected_difference=-0.1, n=12, kept=True)
    repair = RepairRecord(True, "default", False, "Every remedy was tried.", 0.3, 10.0, None, (trial,))
    manifest = replace(opened.manifest, repair=repair)
    (bundle / CERTIFICATE).unlink()
    write_manifest(bundle, manifest, {role: opened.artifact(role) for role in ("deployed", "float")})
    refused = edgetl.verify(bundle, margin=0.3)
    assert refused.verdict == "fail"
    assert "not-repaired" in {finding.kind for finding in refused.findings}
    assert any("lost 20 points of accuracy" in finding.what for finding in refused.findings)
    tolerated = edgetl.verify(bundle, margin=0.5)
    assert "not-repaired" not in {finding.kind for finding in tolerated.findings}
    assert "not-repaired" in {finding.kind for finding in edgetl.verify(bundle, margin=0.2).findings}
