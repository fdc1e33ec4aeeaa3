"""Learning curves in TensorBoard and MLflow, read back by their own readers: one curve, however it came about."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import edgetl
from edgetl.base.errors import UnknownNameError
from edgetl.core.run import load_run
from edgetl.transfer.curves import PROGRAMS, recorder, scalars
from tests.conftest import ROOT

#: The command line where a package is not installed.
WITHOUT = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refusing())
from edgetl.cli import main
main(sys.argv[1:])
"""
OPTIONS = (
    "--backbone",
    "timm/test_efficientnet",
    "--weights",
    "none",
    "--image-size",
    "32",
    "--epochs",
    "3",
    "--quiet",
)
ROWS = [
    {"epoch": 0, "val": {"accuracy": 0.4, "loss": 1.1, "n": 12}},
    {
        "epoch": 1,
        "val": {"accuracy": 0.5, "loss": float("nan"), "n": 12},
        "train_loss": 1.0,
        "train_accuracy": 0.6,
        "learning_rate": 3e-4,
    },
]


def test_a_row_has_losses_metrics_and_the_learning_rate() -> None:
    assert scalars(ROWS[0]) == {"val/accuracy": 0.4, "val/loss": 1.1}
    expected = {"train/loss": 1.0, "train/accuracy": 0.6, "learning_rate": 3e-4, "val/accuracy": 0.5}
    assert scalars(ROWS[1]) == expected


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """As TensorBoard reads them: every value of every file, those that it was told to forget left out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def of_history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in load_run(folder).history:
        for name, value in scalars(row).items():
            found.setdefault(name, []).append((row["epoch"], pytest.approx(value)))
    return found


def test_tensorboard_gets_one_curve_from_a_run_that_was_killed(tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard (edgetl[log]) reads its files back")
    script = "import sys; from edgetl.cli import main; main(sys.argv[1:])"
    words = [
        "finetune",
        str(tiny_run.parent / "photos"),
        "--out",
        str(tmp_path / "run"),
        *OPTIONS,
        "--log",
        "tensorboard",
    ]
    process = subprocess.Popen([sys.executable, "-c", script, *words], cwd=ROOT, stderr=subprocess.PIPE)
    history = tmp_path / "run" / "history.jsonl"
    while process.poll() is None:
        if history.is_file():
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.005)
    process.communicate()
    # Another process had told of epochs that this one, from an older checkpoint, will come to again.
    with recorder("tensorboard", tmp_path / "run", {}) as record:
        record([*ROWS, {**ROWS[1], "epoch": 2}])
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert curves(tmp_path / "run") == of_history(tmp_path / "run")
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    # The outcome is that of a run that nobody watches.
    assert load_run(tmp_path / "run").digest == load_run(tiny_run).digest


def test_a_finished_run_is_told_whole(tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard (edgetl[log]) reads its files back")
    shutil.copytree(tiny_run, tmp_path / "run")
    data, out = tiny_run.parent / "photos", tmp_path / "run"
    options: dict[str, Any] = {"backbone": "timm/test_efficientnet", "weights": "none", "image_size": 32, "epochs": 3}
    for _ in range(2):
        edgetl.finetune(data, out, **options, log="tensorboard")
        assert curves(out) == of_history(out)
    # Whoever does not ask for them again leaves them where they are.
    edgetl.finetune(data, out, **options)
    assert (out / "tensorboard").is_dir()


def test_mlflow_gets_one_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny brings two dozen packages: edgetl[log]")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    settings = {"backbone": "mlp", "seed": 0, "details": {"a": 1}}

    def told(rows: list[dict[str, Any]]) -> None:
        with recorder("mlflow", tmp_path / "run", settings) as record:
            record(rows[:1])
            record(rows)

    told(ROWS)
    told([*ROWS, {**ROWS[1], "epoch": 2, "train_loss": 0.5}])
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("edgetl").experiment_id])
    assert (run.data.params, run.info.status) == ({"backbone": "mlp", "seed": "0"}, "FINISHED")
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")] == [(1, 1.0), (2, 0.5)]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val/accuracy")] == [0, 1, 2]


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_not_installed_is_said_before_any_work(name: str, photos: Path, tmp_path: Path) -> None:
    words = ["finetune", str(photos), "--out", str(tmp_path / "run"), "--log", name]
    command = [sys.executable, "-c", WITHOUT.format(PROGRAMS[name].module), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'edgetl[log]'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_unknown_program_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown log 'tensorbord': did you mean tensorboard"):
        edgetl.finetune(photos, tmp_path / "run", log="tensorbord")
    assert not (tmp_path / "run").exists()
