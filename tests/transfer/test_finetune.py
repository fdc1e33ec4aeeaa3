"""The stage from images to a run: outcome, resuming after SIGKILL, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgetl.base.errors import DataError, EdgetlError, RunError, TrainingError, UnknownNameError
from edgetl.core.run import load_run
from edgetl.inputs import input_of
from edgetl.tasks import find_task
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import load_model
from edgetl.transfer.tasks import scored

from .conftest import TINY

PROGRAM = """
import json, sys, torch
torch.set_num_threads(1)
from edgetl.transfer.finetune import finetune
from edgetl.inputs import input_of
options = json.loads(sys.argv[3])
if __name__ == "__main__":
    finetune(sys.argv[1], sys.argv[2], **options)
"""


def start(tmp_path: Path, data: Path, out: Path, options: dict[str, Any]) -> subprocess.Popen[bytes]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen([sys.executable, str(program), str(data), str(out), json.dumps(options)], env=env)


def test_resumed_after_sigkill_equals_uninterrupted(tmp_path: Path, few_digits: Path) -> None:
    options = {**TINY, "epochs": 6, "learning_rate": 0.003, "checkpoint_seconds": 0.0}
    whole = finetune(few_digits, tmp_path / "whole", **{**options, "checkpoint_seconds": 1000.0})
    out = tmp_path / "killed"
    process = start(tmp_path, few_digits, out, options)
    while not (out / "checkpoint" / "last.pt").is_file():
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(RunError, match="unfinished"):
        load_run(out)
    held = torch.load(out / "checkpoint" / "last.pt", weights_only=True)["state"]
    assert held["epoch"] < 6
    resumed = finetune(few_digits, out, **options)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.metrics == whole.metrics
    assert (out / "history.jsonl").read_text() == (tmp_path / "whole" / "history.jsonl").read_text()
    assert {p.name for p in out.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def test_fine_tuning_is_never_worse_than_its_start_on_val(tmp_path: Path, few_digits: Path) -> None:
    tuned = finetune(few_digits, tmp_path / "tuned", **TINY, epochs=3, learning_rate=0.003)
    before, after = tuned.metrics.start, tuned.metrics.val
    assert after["balanced_accuracy"] >= before["balanced_accuracy"]
    rows = [json.loads(line) for line in (tuned.path / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(4))
    assert (
        tuned.metrics.best_epoch
        == max(rows, key=lambda r: (r["val"]["balanced_accuracy"], -r["val"]["loss"], -r["epoch"]))["epoch"]
    )
    assert rows[-1]["train_loss"] < rows[1]["train_loss"]
    assert tuned.history == rows
    outputs = tuned.val_outputs
    assert outputs is not None
    assert scored(find_task(tuned.task), outputs, tuned.dataset.labels("val")).to_json() == after
    (tuned.path / "val.npz").write_bytes(b"")
    with pytest.raises(RunError, match=r"val\.npz is missing or was altered"):
        load_run(tuned.path)


def test_linear_probe_on_digits_beats_chance_by_far(tmp_path: Path) -> None:
    run = finetune("digits", tmp_path / "run", **TINY, strategy="linear-probe")
    assert run.metrics.val["balanced_accuracy"] > 0.8
    assert run.metrics.epochs_run == 0
    assert (run.path / "images").is_dir()
    assert not (run.path / "checkpoint").exists()
    model = load_model(run)
    with torch.inference_mode():
        logits = model(torch.from_numpy(input_of(run).batch(run.dataset.paths("val"))["image"]))
    found = scored(find_task(run.task), {"logits": logits.numpy()}, run.dataset.labels("val"))
    assert found.metrics["accuracy"] == run.metrics.val["accuracy"]
    again = finetune("digits", tmp_path / "run", **TINY, strategy="linear-probe")
    assert again.digest == run.digest
    twin = finetune("digits", tmp_path / "twin", **TINY, strategy="linear-probe")
    assert (twin.metrics, twin.weights_sha256) == (run.metrics, run.weights_sha256)


def test_a_finished_run_is_not_done_again_unless_settings_differ(tmp_path: Path, few_digits: Path) -> None:
    out = tmp_path / "run"
    options = {**TINY, "strategy": "linear-probe"}
    first = finetune(few_digits, out, **options)
    stamp = (out / "run.json").stat().st_mtime_ns
    assert finetune(few_digits, out, **options).digest == first.digest
    assert (out / "run.json").stat().st_mtime_ns == stamp
    with pytest.raises(RunError, match=r"seed 0 there, 1 now.*--fresh"):
        finetune(few_digits, out, **options, seed=1)
    replaced = finetune(few_digits, out, **options, seed=1, fresh=True)
    assert replaced.settings["seed"] == 1
    assert load_run(out).weights_sha256 == replaced.weights_sha256


def test_changed_images_are_noticed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (data / label).mkdir(parents=True)
        for index in range(10):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(data / label / f"{index}.png")
    options = {**TINY, "strategy": "linear-probe"}
    finetune(data, tmp_path / "run", **options)
    new = data / "a" / "new.png"
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(new)
    with pytest.raises(DataError, match=r"new\.png is new since"):
        finetune(data, tmp_path / "run", **options)
    new.replace(data / "a" / "0.png")
    with pytest.raises(DataError, match=r"0\.png changed since"):
        finetune(data, tmp_path / "run", **options)
    (data / "a" / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png is gone since"):
        finetune(data, tmp_path / "run", **options)


def test_divergence_is_one_line_and_leaves_the_folder_usable(tmp_path: Path, few_digits: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        finetune(few_digits, tmp_path / "run", **TINY, epochs=4, learning_rate=1e30)
    message = str(caught.value)
    assert "epoch" in message
    assert "step" in message
    assert "learning rate" in message
    assert "--learning-rate" in message
    assert "\n" not in message
    with pytest.raises(RunError):
        load_run(tmp_path / "run")
    run = finetune(few_digits, tmp_path / "run", **TINY, epochs=1, learning_rate=1e-4)
    assert run.settings["learning_rate"] == 1e-4


def test_wrong_options_are_refused_before_any_work(tmp_path: Path, few_digits: Path) -> None:
    wrong: list[tuple[dict[str, Any], type[EdgetlError], str]] = [
        ({"backbone": "efficientnet_lit0"}, UnknownNameError, "did you mean"),
        ({"strategy": "finetune"}, UnknownNameError, "did you mean"),
        ({"epochs": 0}, EdgetlError, "epochs"),
        ({"learning_rate": 0.0}, EdgetlError, "learning rate"),
        ({"batch_size": 0}, EdgetlError, "batch size"),
        ({"batch_size": 1, "devices": 2}, EdgetlError, "batch size"),
        ({"batch_size": "large"}, EdgetlError, "batch size is large: give at least 1, or auto"),
        ({"devices": 0}, EdgetlError, "devices"),
        ({"accelerator": "tpu"}, EdgetlError, "accelerator"),
        ({"precision": "int8"}, EdgetlError, "precision"),
        ({"precision": "16-mixed"}, EdgetlError, "GPU"),
        ({"weights": tmp_path / "absent.pth"}, EdgetlError, "weights file"),
    ]
    for change, error, words in wrong:
        with pytest.raises(error, match=words):
            finetune(few_digits, tmp_path / "run", **{**TINY, **change})
    with pytest.raises(DataError, match="there is no"):
        finetune(tmp_path / "absent", tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


def test_foreign_and_unwritable_folders_are_left_alone(tmp_path: Path, few_digits: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(RunError, match=r"thesis\.txt"):
        finetune(few_digits, tmp_path / "mine", **TINY, fresh=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "words"
    with pytest.raises(EdgetlError, match="cannot write"):
        finetune(few_digits, tmp_path / "mine" / "thesis.txt" / "run", **TINY)
