"""Arrays: a table and small pictures as numbers, linear, by residual blocks and by convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import Ridge

from edgetl.base.errors import EdgetlError
from edgetl.core.tensors import TensorSpec
from edgetl.inputs import Tensors, input_of
from edgetl.transfer.arrays import cnn, mlp
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import Deployable, load_model

OPTIONS: dict[str, Any] = {"precision": "32-true", "accelerator": "cpu"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's diabetes table, its columns in units of very different size."""
    x, y = load_diabetes(return_X_y=True)
    file = tmp_path_factory.mktemp("table") / "diabetes.npz"
    np.savez(file, x=(x * 10.0 ** np.arange(-3, 7) + 5).astype(np.float32), target=y)
    return file


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 of scikit-learn's digits as arrays of 8x8 numbers."""
    bunch = load_digits()
    file = tmp_path_factory.mktemp("pictures") / "digits.npz"
    np.savez(file, x=bunch.images[:300].astype(np.float32), y=bunch.target[:300])
    return file


def test_a_linear_probe_of_a_table_is_ridge_regression_of_standardised_columns(table: Path, tmp_path: Path) -> None:
    run = finetune(table, tmp_path / "run", **OPTIONS, strategy="linear-probe")
    assert (run.task, run.backbone, run.lineage["weights"]) == ("regression", "mlp", "random initialisation")
    definition = input_of(run)
    x, vx = (definition.batch(run.dataset.paths(name))["x"].astype(np.float64) for name in ("train", "val"))
    y, vy = run.dataset.labels("train"), run.dataset.labels("val")
    standard, values = (x - x.mean(0)) / x.std(0), (vx - x.mean(0)) / x.std(0)
    best = min(np.abs(Ridge(alpha=1 / c).fit(standard, y).predict(values) - vy).mean() for c in (1e-3, 1e-2, 1e-1, 1))
    assert run.metrics.val["mae"] == pytest.approx(best, rel=0.02)
    assert run.metrics.val["r2"] > 0.3
    with torch.inference_mode():
        raw = load_model(run)(torch.from_numpy(vx.astype(np.float32))).numpy()
    assert np.abs(raw[:, 0] - vy).mean() == pytest.approx(run.metrics.val["mae"], rel=1e-5)


def test_fine_tuning_a_table_starts_from_the_linear_model(table: Path, tmp_path: Path) -> None:
    run = finetune(table, tmp_path / "run", **OPTIONS, epochs=3, baseline="probe")
    assert run.baseline is not None
    assert run.settings["details"]["params"]["layer_decay"] == 1.0
    assert run.metrics.val["mae"] <= run.metrics.start["mae"] * (1 + 1e-6)
    assert run.gain is not None
    with pytest.raises(EdgetlError, match="'mlp' starts from scratch itself: use --baseline probe"):
        finetune(table, tmp_path / "run", **OPTIONS, epochs=3, baseline="scratch")


def test_convolutions_taken_up_again_end_with_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "backbone": "cnn", "epochs": 4, "checkpoint_seconds": 0.0}
    whole = finetune(pictures, tmp_path / "whole", **options)
    assert whole.metrics.val["accuracy"] > 0.7

    def stop(task: str, done: int, total: int, detail: str = "") -> None:
        if task == "training" and done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(pictures, tmp_path / "stopped", **options, progress=stop)
    again = finetune(pictures, tmp_path / "stopped", **options)
    assert again.weights_sha256 == whole.weights_sha256
    assert again.history == whole.history


def test_standardisation_lies_in_the_graph() -> None:
    arrays = [np.random.default_rng(i).normal(7, 3, (2, 5, 6)).astype(np.float32) for i in range(20)]
    definition = Tensors.of(arrays, axis=0)
    network = Deployable(torch.nn.Identity(), definition)
    found = network.fed(definition.batch(arrays), torch.device("cpu")).numpy()
    assert found.mean((0, 2, 3)) == pytest.approx(0, abs=1e-5)
    assert found.std((0, 2, 3)) == pytest.approx(1, abs=1e-5)


def test_shapes_that_a_network_takes() -> None:
    window, rows = TensorSpec("x", "float32", (None, 20, 3)), TensorSpec("y", "float32", (None, 4))
    assert mlp([window, rows], 5)(torch.zeros(2, 20, 3), torch.zeros(2, 4)).shape == (2, 5)
    assert cnn([window], 5).eval()(torch.zeros(2, 20, 3)).shape == (2, 5)
    coloured = TensorSpec("x", "float32", (None, 3, 20, 12))
    assert cnn([coloured], 5).eval()(torch.zeros(2, 3, 20, 12)).shape == (2, 5)
    for wrong in ([rows], [window, rows]):
        with pytest.raises(EdgetlError, match="the backbone 'cnn' takes one array"):
            cnn(wrong, 5)


def test_a_network_that_does_not_fit_the_data_leaves_the_folder_to_another(table: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="the backbone 'cnn' takes one array"):
        finetune(table, tmp_path / "run", **OPTIONS, backbone="cnn")
    assert finetune(table, tmp_path / "run", **OPTIONS, strategy="linear-probe").backbone == "mlp"
