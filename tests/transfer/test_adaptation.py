"""From a labelled source to a target without labels: who certifies, what is read, and what reaches the device."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from PIL import Image, ImageOps

from edgetl.base.errors import DataError, EdgetlError
from edgetl.compress.export import export_onnx
from edgetl.core.adaptation import ONLY_AGREEMENT
from edgetl.core.bundle import check_certificate, load_bundle
from edgetl.core.run import WEIGHTS, Run, load_run
from edgetl.inputs import input_of
from edgetl.transfer import streams
from edgetl.transfer.classifier import head_of
from edgetl.transfer.domains import HELD
from edgetl.transfer.features import compute
from edgetl.transfer.finetune import finetune
from edgetl.transfer.heads import logistic
from edgetl.transfer.model import load_model
from edgetl.transfer.sources import Sources
from edgetl.transfer.statistics import measure, values_of
from edgetl.transfer.stores import store_of

from .conftest import TINY
from .test_finetune import start

Cli = Callable[..., subprocess.CompletedProcess[str]]
FAST: dict[str, Any] = {**TINY, "epochs": 2}
#: The statistics of the embedded digits suit no turned picture; a source that is not turned is another domain.
LOOPS = ("coral", "mmd", "dann")


@pytest.fixture(scope="module")
def inverted(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target: digits in negative, 40 of each, other ones than the source's where there are."""
    root = tmp_path_factory.mktemp("negatives")
    for file in sorted(few_digits.rglob("*.png")):
        with Image.open(file) as image:
            turned = ImageOps.invert(image).point(lambda value: value * 3 // 4)
        turned.save(root / f"{file.parent.name}-{file.name}")
    return root


@pytest.fixture(scope="module")
def labelled(inverted: Path) -> Path:
    """A table of them, of which every other row has a label."""
    file = inverted.parent / f"{inverted.name}.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label"))
        for number, image in enumerate(sorted(inverted.iterdir())):
            writer.writerow((f"{inverted.name}/{image.name}", image.name[0] if number % 2 else ""))
    return file


def test_labelled_rows_of_the_target_certify_and_the_others_train(
    few_digits: Path, labelled: Path, tmp_path: Path
) -> None:
    run = finetune(few_digits, tmp_path / "run", **FAST, strategy="coral", target_data=labelled)
    target = {s.path: s for s in run.dataset.samples if "negatives" in s.path}
    assert {s.split for s in target.values()} == set(HELD)
    assert {s.split for s in run.dataset.samples if s.path not in target} == {"train", "val"}
    with labelled.open(encoding="utf-8") as stream:
        told = {row["path"]: row["label"] for row in csv.DictReader(stream)}
    for path, sample in target.items():
        label = told["/".join(path.split("/")[-2:])]
        assert bool(label) == (sample.split != "calibration"), path
        assert not label or run.classes[int(sample.label)] == label  # type: ignore[arg-type]
    sizes = run.dataset.sizes()
    assert sizes["certify"] == pytest.approx(2 * sizes["search"], abs=4)
    found = run.adaptation
    assert found is not None
    assert found.labelled
    assert found.search["n"] == sizes["search"]
    assert found.samples + found.judged + sizes["calibration"] == sum(not label for label in told.values())
    assert set(found.notes) == set(load_run(run.path).adaptation.notes)  # type: ignore[union-attr]
    assert run.history[-1]["val"]["target_both"] >= 0
    again = finetune(few_digits, tmp_path / "run", **FAST, strategy="coral", target_data=labelled)
    assert again.digest == run.digest


def test_without_labels_the_trained_model_answers_for_the_target(
    few_digits: Path, inverted: Path, tmp_path: Path
) -> None:
    run = finetune(few_digits, tmp_path / "run", **FAST, strategy="adabn", target_data=inverted)
    assert run.adaptation is not None
    assert not run.adaptation.labelled
    assert ONLY_AGREEMENT in run.adaptation.notes
    model = load_model(run)
    for split in HELD:
        image = torch.from_numpy(model.definition.batch(run.dataset.paths(split))["image"])
        with torch.no_grad():
            assert np.array_equal(model(image).argmax(1).numpy(), run.dataset.labels(split)), split


def test_no_label_of_the_target_moves_a_weight(few_digits: Path, labelled: Path, tmp_path: Path) -> None:
    wrong = labelled.with_name("wrong.csv")
    with labelled.open(encoding="utf-8") as stream, wrong.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(("path", "label"))
        for row in csv.DictReader(stream):
            writer.writerow((row["path"], str((int(row["label"]) + 1) % 4) if row["label"] else ""))
    runs = [
        finetune(few_digits, tmp_path / name, **FAST, strategy="coral", target_data=table)
        for name, table in (("right", labelled), ("wrong", wrong))
    ]
    # Which of them search and which certify is drawn from the labels; what is trained on is not.
    assert runs[0].weights_sha256 == runs[1].weights_sha256
    assert runs[0].metrics == runs[1].metrics
    shutil.rmtree(tmp_path / "wrong")
    wrong.unlink()


@pytest.fixture(scope="module")
def adapted(few_digits: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of each strategy of two domains."""
    folder = tmp_path_factory.mktemp("adapted")
    runs = {
        name: finetune(few_digits, folder / name, **FAST, strategy=name, target_data=labelled)
        for name in ("source-only", "adabn", *LOOPS)
    }
    source = runs["source-only"].path
    more = {"weights": None, "from_run": source}
    runs["shot"] = finetune(few_digits, folder / "shot", **{**FAST, **more}, strategy="shot", target_data=labelled)
    return runs


def tensors(run: Run) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(run.path / WEIGHTS))


def test_adabn_fits_the_head_under_the_source_s_statistics_and_ends_with_the_target_s(
    adapted: dict[str, Run], few_digits: Path, labelled: Path, tmp_path: Path
) -> None:
    run, plain = adapted["adabn"], finetune(few_digits, tmp_path / "probe", **TINY, strategy="linear-probe")
    kept, start = tensors(run), tensors(plain)
    moved = {name for name, value in kept.items() if not torch.equal(value, start[name])}
    assert {name.rsplit(".", 1)[-1] for name in moved if not name.startswith("classifier.")} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    model, head = load_model(plain), head_of(load_model(run).backbone)[1]
    measure(model, store_of(model.definition, run.dataset.paths("train")))
    parts = [
        (
            compute(model, store_of(model.definition, run.dataset.paths(name)), torch.device("cpu")),
            run.dataset.labels(name),
        )
        for name in ("train", "val")
    ]
    fitted = logistic(parts[0], parts[1], len(run.classes), balance=1.0)
    assert np.allclose(fitted.weight, head.weight.detach().numpy(), atol=1e-4)
    beside = streams.read(Sources(target=labelled), run.dataset, "image", tmp_path).with_judged(0)
    measure(model, store_of(model.definition, beside.samples["target"].paths))
    ends = dict(values_of(load_model(run).backbone))
    assert all(torch.allclose(value, ends[name], atol=1e-5) for name, value in values_of(model.backbone))


def test_what_only_training_needs_is_no_part_of_the_export(adapted: dict[str, Run], tmp_path: Path) -> None:
    shapes = {name: {key: value.shape for key, value in tensors(run).items()} for name, run in adapted.items()}
    assert all(found == shapes["source-only"] for found in shapes.values())
    graphs = {}
    for name, run in adapted.items():
        file = export_onnx(
            load_model(run), input_of(run), tmp_path / f"{name}.onnx", outputs=("logits",), batch=1, opset=18
        )
        graphs[name] = [node.op_type for node in onnx.load(file).graph.node]
    assert all(found == graphs["source-only"] for found in graphs.values())
    # The one that is left normalises the picture.
    assert graphs["adabn"].count("BatchNormalization") == 1, "adapted statistics are folded"


def test_the_control_sees_nothing_of_the_target(adapted: dict[str, Run]) -> None:
    run = adapted["source-only"]
    assert run.lineage["streams"] == {}
    assert run.adaptation is not None
    assert run.adaptation.notes[0].endswith("trained on a labelled source domain alone.")
    assert run.adaptation.notes[1].endswith("by the source's labelled validation samples.")


def test_a_source_free_run_keeps_its_head_and_reads_no_label(adapted: dict[str, Run]) -> None:
    run, source = tensors(adapted["shot"]), tensors(adapted["source-only"])
    assert adapted["shot"].settings["details"]["terms"] == ["information of the target's answers"]
    assert any(not torch.equal(value, source[name]) for name, value in run.items() if name.startswith("blocks."))
    trained = adapted["shot"].lineage["trained"]
    assert trained["tensors"] == sum(1 for name in source if "running" not in name and "num_batches" not in name) - 2


@pytest.mark.parametrize("labels", [True, False])
def test_a_bundle_says_which_domain_it_was_certified_on(
    edgetl: Cli, adapted: dict[str, Run], few_digits: Path, inverted: Path, tmp_path: Path, labels: bool
) -> None:
    run = adapted["dann"]
    if not labels:
        run = finetune(few_digits, tmp_path / "run", **FAST, strategy="adabn", target_data=inverted)
    out = tmp_path / "out"
    done = edgetl("export", run.path, "--target", "x86-generic", "--out", out, "--no-bench", "--quiet")
    assert done.returncode in (0, 3), done.stderr
    certificate = check_certificate(load_bundle(out / "x86-generic"))
    assert certificate.labelled_by == ("owner" if labels else "model")
    assert any(note.startswith("Calibrated and certified on the target domain") for note in certificate.notes)
    assert (ONLY_AGREEMENT in certificate.notes) is not labels
    assert ("nobody labelled" in certificate.sentence()) is not labels
    if labels:
        assert any("chosen without a label of the target" in note for note in certificate.notes)
    else:
        assert certificate.reference_score == 1.0
    told = edgetl("report", out / "x86-generic", run.path, "--out", tmp_path / "report.html")
    assert told.returncode == 0, told.stderr
    shown = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("agreement with the trained model" in shown) is not labels
    assert load_bundle(out / "x86-generic").dataset.sizes()["certify"] == certificate.n


def test_a_network_without_batch_norm_has_nothing_to_adapt(few_digits: Path, labelled: Path, tmp_path: Path) -> None:
    options = {**FAST, "backbone": "timm/test_vit", "weights": "none"}
    with pytest.raises(EdgetlError, match=r"no batch norm .*batch_norm=frozen"):
        finetune(few_digits, tmp_path / "run", **options, strategy="coral", target_data=labelled)
    assert not list((tmp_path / "run").glob("*"))


@pytest.mark.parametrize("strategy", ["dann"])
def test_resumed_after_sigkill_equals_uninterrupted(
    adapted: dict[str, Run], few_digits: Path, labelled: Path, tmp_path: Path, strategy: str
) -> None:
    """The discriminator is in the checkpoint: its weights and its optimizer's moments."""
    out = tmp_path / "killed"
    options = {**FAST, "strategy": strategy, "target_data": str(labelled), "checkpoint_seconds": 0.0}
    process = start(tmp_path, few_digits, out, options)
    while not (out / "checkpoint" / "last.pt").is_file():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = finetune(few_digits, out, **options)
    assert resumed.weights_sha256 == adapted[strategy].weights_sha256
    assert resumed.metrics == adapted[strategy].metrics


def test_a_target_that_cannot_be_used_is_told(few_digits: Path, labelled: Path, inverted: Path, tmp_path: Path) -> None:
    def table(name: str, *rows: tuple[str, ...], columns: tuple[str, ...] = ("path", "label")) -> Path:
        file = labelled.with_name(f"{name}.csv")
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([columns, *rows])
        return file

    images = [f"{inverted.name}/{file.name}" for file in sorted(inverted.iterdir())]
    few = [(name, "0") for name in images[:4]] + [(name, "") for name in images[4:]]
    wrong: list[tuple[Path, dict[str, Any], str]] = [
        (table("few", *few), {}, "has a label in 4 rows: give 10 at least, or none"),
        (
            table("other", *((name, "seven") for name in images)),
            {},
            "the class 'seven', which the source does not have",
        ),
        (table("all", *((name, name.rsplit("/", 1)[1][0]) for name in images)), {}, "rows without a label"),
        (table("short", *((name, "") for name in images[:12])), {}, "to adapt to: give 20 at least"),
        (few_digits, {}, "leaves no sample for calibration"),
        (labelled, {"set": {"validator": "target"}}, "validator is target: give both or information or certainty"),
        (labelled, {"set": {"batch_norm": "none"}}, "batch_norm is none: give frozen or train or adapt"),
    ]
    for target, more, words in wrong:
        with pytest.raises((DataError, EdgetlError), match=words):
            finetune(few_digits, tmp_path / "run", **{**FAST, **more}, strategy="coral", target_data=target)
        assert not list((tmp_path / "run").glob("*")), words
    for name in ("few", "other", "all", "short"):
        labelled.with_name(f"{name}.csv").unlink()
    with pytest.raises(EdgetlError, match="needs samples of the target domain"):
        finetune(few_digits, tmp_path / "run", **FAST, strategy="coral")


def test_samples_of_both_that_readers_write_lie_in_the_run(tmp_path: Path) -> None:
    """Sentences of one domain and another: neither has files of its own."""
    rows = [(f"a good film, {n}", "good") for n in range(40)] + [(f"bad {n}", "bad") for n in range(40)]
    for name, listed in (("source", rows), ("target", [(f"a fine dish, {n}", "") for n in range(60)])):
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("text", "label"), *listed])
    options = {"backbone": "minilm", "epochs": 1, "accelerator": "cpu", "precision": "32-true"}
    run = finetune(
        tmp_path / "source.csv", tmp_path / "run", **options, strategy="coral", target_data=tmp_path / "target.csv",
        set={"batch_norm": "frozen"},
    )  # fmt: skip
    assert run.dataset.root == (tmp_path / "run" / "samples").resolve()
    assert {file.read_text()[:11] for file in run.dataset.paths("certify")} == {"a fine dish"}
    assert not (tmp_path / "run" / "checkpoint").exists()
