"""What a transfer is measured against: both kinds, added to a finished run, resumed, read back."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from edgetl.base.errors import EdgetlError, RunError, TrainingError
from edgetl.base.progress import silent
from edgetl.core.run import Run, load_run
from edgetl.inputs import input_of
from edgetl.tasks import find_task
from edgetl.transfer import strategies
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import load_baseline, load_model
from edgetl.transfer.tasks import scored
from edgetl.workflow.reference import TorchReference, reproduced

from .conftest import TINY
from .test_finetune import start

OPTIONS: dict[str, Any] = {**TINY, "epochs": 2, "learning_rate": 0.003}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, few_digits: Path) -> Run:
    """A finished run without a baseline; copied before it is altered."""
    torch.set_num_threads(1)
    return finetune(few_digits, tmp_path_factory.mktemp("plain") / "run", **OPTIONS)


@pytest.fixture
def finished(plain: Run, tmp_path: Path) -> Run:
    shutil.copytree(plain.path, tmp_path / "run")
    return load_run(tmp_path / "run")


@pytest.mark.parametrize("kind", ["scratch", "probe"])
def test_added_to_a_finished_run_it_changes_nothing_else(kind: str, finished: Run, few_digits: Path) -> None:
    seen: set[str] = set()
    stamp = finished.weights.stat().st_mtime_ns
    run = finetune(
        few_digits, finished.path, **OPTIONS, baseline=kind, progress=lambda task, *rest: seen.add(task.split(":")[0])
    )
    assert seen <= {"baseline", "checking samples"}
    assert "baseline" in seen
    assert finished.baseline is None
    assert run.baseline is not None
    assert run.baseline.kind == kind
    same = ("digest", "weights_sha256", "settings", "metrics", "lineage", "strategy")
    assert [getattr(run, name) for name in same] == [getattr(finished, name) for name in same]
    assert run.weights.stat().st_mtime_ns == stamp
    names = {p.name for p in run.path.iterdir()}
    assert "baseline.safetensors" in names
    assert "checkpoint" not in names
    shown = run.to_json()["baseline"]
    assert shown["gain"] == run.metrics.val["accuracy"] - run.baseline.metrics.val["accuracy"]


@pytest.mark.parametrize("kind", ["scratch", "probe"])
def test_its_recorded_accuracy_is_reproduced(kind: str, finished: Run, few_digits: Path) -> None:
    run = finetune(few_digits, finished.path, **OPTIONS, baseline=kind)
    assert run.baseline is not None
    with torch.inference_mode():
        logits = load_baseline(run)(torch.from_numpy(input_of(run).batch(run.dataset.paths("val"))["image"]))
    found = scored(find_task(run.task), {"logits": logits.numpy()}, run.dataset.labels("val"))
    assert found.metrics["accuracy"] == run.baseline.metrics.val["accuracy"]
    assert found.loss == pytest.approx(run.baseline.metrics.val["loss"], rel=1e-5)
    own, other = load_model(run).state_dict(), load_baseline(run).state_dict()
    assert own.keys() == other.keys()
    assert any(not torch.equal(own[name], other[name]) for name in own)


def test_trained_together_or_added_later_it_is_the_same(finished: Run, few_digits: Path, tmp_path: Path) -> None:
    for kind in ("scratch", "probe"):
        whole = finetune(few_digits, tmp_path / kind, **OPTIONS, baseline=kind)
        later = finetune(few_digits, finished.path, **OPTIONS, baseline=kind)
        assert whole.baseline == later.baseline
        assert whole.digest == later.digest
    # The second kind took the first one's place.
    assert load_run(finished.path).baseline == later.baseline
    kept = finetune(few_digits, finished.path, **OPTIONS)
    assert kept.baseline == later.baseline


def test_scratch_starts_at_random_and_trains_its_batch_norm(finished: Run, few_digits: Path) -> None:
    run = finetune(few_digits, finished.path, **OPTIONS, baseline="scratch")
    assert run.baseline is not None
    settings, details = run.baseline.settings, run.baseline.settings["details"]
    assert (settings["epochs"], settings["batch_size"], settings["weights"]) == (2, TINY["batch_size"], "none")
    assert details["params"] == {
        "trains": "all",
        "layer_decay": 1.0,
        "batch_norm": "train",
        "unfreeze": 0.0,
        "freeze": 0.0,
        "embeddings": "train",
    }
    assert details["head"]["start"] == "random"
    assert run.baseline.metrics.epochs_run == 2
    assert run.baseline.metrics.best_epoch > 0
    means = {k: v for k, v in safetensors.torch.load_file(run.path / "baseline.safetensors").items() if "mean" in k}
    assert means
    assert all(value.abs().sum() > 0 for value in means.values())


def test_scratch_learns_with_enough_epochs(tmp_path: Path, few_digits: Path) -> None:
    probe = {**TINY, "strategy": "linear-probe"}
    run = finetune(few_digits, tmp_path / "run", **probe, baseline="scratch")
    assert run.baseline is not None
    # A probe has no epochs that the baseline could equal.
    assert run.baseline.settings["epochs"] == strategies.find("fine-tune").schedule.epochs
    assert run.baseline.metrics.val["balanced_accuracy"] > 0.7


def test_resumed_after_sigkill_equals_uninterrupted(tmp_path: Path, few_digits: Path) -> None:
    options = {**OPTIONS, "epochs": 6, "checkpoint_seconds": 0.0, "baseline": "scratch"}
    whole = finetune(few_digits, tmp_path / "whole", **{**options, "checkpoint_seconds": 1000.0})
    out = tmp_path / "killed"
    last = out / "checkpoint" / "baseline-scratch" / "checkpoint" / "last.pt"
    process = start(tmp_path, few_digits, out, options)
    while not last.is_file():
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(last, weights_only=True)["state"]["epoch"] < 6
    between = load_run(out)
    assert between.baseline is None
    assert between.digest == whole.digest
    resumed = finetune(few_digits, out, **options)
    assert resumed.baseline == whole.baseline
    assert resumed.weights_sha256 == whole.weights_sha256
    assert {p.name for p in out.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def test_what_cannot_be_a_baseline_is_refused_before_any_work(tmp_path: Path, few_digits: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(EdgetlError, match="unknown baseline 'skratch': choose scratch or probe") as caught:
        finetune(few_digits, out, **OPTIONS, baseline="skratch")
    assert caught.value.exit_status == 2
    with pytest.raises(EdgetlError, match="against a linear probe: use --baseline scratch"):
        finetune(few_digits, out, **TINY, strategy="linear-probe", baseline="probe")
    with pytest.raises(EdgetlError, match="one sample a step"):
        finetune(few_digits, out, **{**OPTIONS, "batch_size": 1}, baseline="scratch")
    assert not out.exists()
    assert not {row["name"] for row in strategies.list_strategies()} & {"scratch", "probe"}


def test_another_setting_is_still_refused(finished: Run, few_digits: Path) -> None:
    with pytest.raises(RunError, match="seed 0 there, 1 now"):
        finetune(few_digits, finished.path, **OPTIONS, seed=1, baseline="probe")
    assert load_run(finished.path).baseline is None


def test_an_altered_or_missing_baseline_is_noticed(finished: Run, few_digits: Path) -> None:
    with pytest.raises(RunError, match="has no baseline: give its finetune command again with --baseline scratch"):
        load_baseline(finished)
    run = finetune(few_digits, finished.path, **OPTIONS, baseline="probe")
    file = run.path / "baseline.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match=r"baseline\.safetensors is missing or was altered"):
        load_run(run.path)
    file.unlink()
    with pytest.raises(RunError, match=r"baseline\.safetensors is missing"):
        load_run(run.path)


def test_divergence_leaves_a_finished_run(finished: Run, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sane = strategies.BASELINES["scratch"]
    monkeypatch.setitem(strategies.BASELINES, "scratch", lambda: sane().scheduled(None, 1e30))
    with pytest.raises(TrainingError, match=r"baseline from scratch: .*: use --baseline probe"):
        finetune(few_digits, finished.path, **OPTIONS, baseline="scratch")
    assert load_run(finished.path) == finished
    assert not (finished.path / "checkpoint").exists()


def test_the_trained_model_measures_as_recorded(finished: Run) -> None:
    recorded, found, n = reproduced(finished, TorchReference(finished).outputs("val", silent))
    assert recorded == finished.metrics.val["accuracy"]
    assert found == recorded
    assert n == len(finished.dataset.split("val"))


def test_the_command_line_says_the_gap(finished: Run, few_digits: Path, edgetl: Any) -> None:
    arguments = ["finetune", few_digits, "--out", finished.path, "--backbone", TINY["backbone"], "--weights", "none"]
    arguments += ["--image-size", 32, "--precision", "32-true", "--accelerator", "cpu", "--batch-size", 16]
    arguments += ["--epochs", 2, "--learning-rate", 0.003, "--quiet", "--baseline"]
    done = edgetl(*arguments, "probe", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    gain = load_run(finished.path).gain
    assert gain is not None
    assert "the baseline, a linear probe" in done.stdout
    assert ("no gap" if gain == 0 else f"{abs(gain) * 100:.1f} points") in done.stdout
    wrong = edgetl(*arguments, "prob")
    assert wrong.returncode == 2
    assert wrong.stderr.strip().endswith("unknown baseline 'prob': choose scratch or probe")
