"""What training does so that a GPU need not wait, and gives the same numbers again; seen without one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgetl.base.errors import TrainingError
from edgetl.core.run import load_run
from edgetl.transfer import train
from edgetl.transfer.finetune import finetune
from edgetl.transfer.loader import Loader, Varied, batch_indices
from edgetl.transfer.model import HELD, gathered
from edgetl.transfer.placement import reproducible
from edgetl.transfer.samples import Row

from .conftest import TINY

#: Operations for which the host waits until a GPU has computed their input: numbers read, and shapes that depend on it.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "equal", "is_nonzero"}


class Waits(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["class", "classes", "number"])
def test_a_step_reads_nothing_back(kind: str, table: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, loss and backward of every kind of label."""
    waits: list[list[str]] = []
    real = train.accumulate

    def watched(*arguments: Any) -> torch.Tensor:
        with Waits() as seen:
            sums = real(*arguments)
        waits.append(seen.seen)
        return sums

    monkeypatch.setattr(train, "accumulate", watched)
    data = table(kind)
    finetune(data, data.parent / "run", accelerator="cpu", precision="32-true", workers=0, batch_size=8, epochs=1)
    assert len(waits) >= 2
    assert not any(waits)


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], Path]:
    """Rows of three numbers with labels of one kind."""

    def written(kind: str) -> Path:
        column = {"class": "label", "classes": "labels", "number": "target"}[kind]
        random = np.random.default_rng(0)
        lines = [f"path,{column}"]
        for index in range(60):
            np.save(tmp_path / f"{index}.npy", random.normal(size=3).astype(np.float32))
            several = ("a", "b", "a|b")[index % 3]
            label = {"class": "ab"[index % 2], "classes": several, "number": f"{index % 7}.5"}[kind]
            lines.append(f"{index}.npy,{label}")
        (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "data.csv"

    return written


def test_reading_seldom_changes_no_number(tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, list[int]] = {}
    runs = {}
    for every in (1, 4):
        monkeypatch.setitem(train.READ_EVERY, "cpu", every)
        steps = seen[every] = []

        def note(task: str, done: int, total: int, detail: str = "", steps: list[int] = steps) -> None:
            if task == "training":
                steps.append(done)

        runs[every] = finetune(few_digits, tmp_path / str(every), **TINY, epochs=2, learning_rate=0.003, progress=note)
    assert runs[1].weights_sha256 == runs[4].weights_sha256
    assert runs[1].history == runs[4].history
    each = len(seen[1]) // 2
    assert seen[1] == list(range(1, 2 * each + 1))
    assert seen[4] == [e * each + step for e in (0, 1) for step in [*range(4, each, 4), each]]


def test_divergence_names_its_step_also_when_it_is_seen_later(
    tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for every in (1, 100):
        monkeypatch.setitem(train.READ_EVERY, "cpu", every)
        with pytest.raises(TrainingError) as caught:
            finetune(few_digits, tmp_path / "run", **TINY, epochs=4, learning_rate=1e30)
        said.append(str(caught.value).split(", at")[0].partition(" in ")[2])
    assert said[0] == said[1]


@pytest.mark.parametrize("count", [0, 1, HELD, 2 * HELD + 3])
def test_outputs_are_gathered_in_order_and_fetched_in_few_goes(count: int) -> None:
    batches = [([2 * i, 2 * i + 1], torch.tensor([[2.0 * i], [2.0 * i + 1]])) for i in range(count)]
    parts = list(gathered(iter(batches)))
    assert [index for order, _ in parts for index in order] == list(range(2 * count))
    assert [float(value) for _, values in parts for value in values] == list(range(2 * count))
    assert len(parts) == -(-count // HELD)


class Numbered:
    """Samples that tell which process drew them."""

    lengths = None

    def __len__(self) -> int:
        return 12

    def varied(self, index: int, epoch: int, seed: int) -> Row:
        return {"x": np.array([index, epoch, os.getpid()])}

    def collate(self, rows: list[Row]) -> dict[str, Any]:
        return {"x": np.stack([row["x"] for row in rows])}


@pytest.mark.parametrize("workers", [0, 2])
def test_one_set_of_workers_loads_every_epoch(workers: int) -> None:
    loader = Loader(Varied(Numbered(), np.arange(12) * 10, 3), 1, 2, workers, pinned=False)  # type: ignore[arg-type]
    processes = set()
    for epoch in range(3):
        batches = batch_indices(12, 4, seed=5, epoch=epoch)[epoch:]
        drawn = list(loader.epoch(batches, epoch))
        assert len(drawn) == 3 - epoch
        for (inputs, targets), batch in zip(drawn, batches, strict=True):
            index, of, process = inputs["x"].T
            assert index.tolist() == batch[2:].tolist(), "the second process's half"
            assert targets.tolist() == [10 * i for i in batch[2:]]
            assert set(of.tolist()) == {epoch}
            processes |= set(process.tolist())
    assert len(processes) == max(workers, 1)
    assert (os.getpid() in processes) == (workers == 0)
    pinning = Loader(Varied(Numbered(), np.arange(12), 3), 0, 1, 0, pinned=True)  # type: ignore[arg-type]
    assert pinning.loader.pin_memory


def flags() -> tuple[Any, ...]:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return (cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision, products.fp32_precision, *strict)


def test_a_gpu_is_deterministic_and_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = flags()

    def interrupted() -> None:
        with reproducible(torch.device("cuda")):
            assert flags() == (False, True, "ieee", "ieee", True, True)
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert flags() == before
    assert torch.backends.cudnn.allow_tf32, "what torch's older switch tells is whole again"


def test_training_leaves_the_process_as_it_was(tmp_path: Path, few_digits: Path) -> None:
    before = flags()
    finetune(few_digits, tmp_path / "run", **TINY, epochs=1)
    assert flags() == before
    assert load_run(tmp_path / "run").metrics.epochs_run == 1
