"""What transfers reach: texts, arrays, several labels, numbers, each probed and fine-tuned, on val and certify.

    python -m benchmarks.task_transfer [NAME …] --data SHARED --work FOLDER --out benchmarks/results/task_transfer.json

The runs stay in ``FOLDER/NAME-STRATEGY`` for whatever exports them. SHARED holds the real data sets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.task_data import red_cells, sentences, several_digits, spoken_digits, table
from edgetl.base.extras import version
from edgetl.base.storage import read_json, write_json
from edgetl.core.run import Run
from edgetl.runtime.machine import machine
from edgetl.tasks import find_task
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import load_model, outputs
from edgetl.transfer.stores import store_of
from edgetl.transfer.tasks import scored

STRATEGIES = ("linear-probe", "fine-tune")
#: Measured where asked for.
MORE = ("lora",)


@dataclass(frozen=True)
class Case:
    """Attributes: the data, given a folder to make it in and that of the real data sets, and options of finetune."""

    data: Callable[[Path, Path], Path]
    options: dict[str, Any]


#: Training sentences used, three quarters of them to train on; all would take an hour of one core.
SENTENCES = 2667
CASES = {
    "sst2": Case(lambda folder, shared: sentences(folder, shared, "sst2", SENTENCES), {}),
    "trec": Case(lambda folder, shared: sentences(folder, shared, "trec", SENTENCES), {}),
    "spoken-cnn": Case(spoken_digits, {"backbone": "cnn"}),
    "spoken-mlp": Case(spoken_digits, {"backbone": "mlp"}),
    "breast-cancer": Case(lambda folder, shared: table(folder, "breast-cancer"), {}),
    "diabetes": Case(lambda folder, shared: table(folder, "diabetes"), {}),
    "digits-several": Case(lambda folder, shared: several_digits(folder), {"image_size": 64}),
    "red-cells": Case(red_cells, {"image_size": 224}),
}


def measured(name: str, strategy: str, work: Path, shared: Path, epochs: int | None) -> dict[str, Any]:
    """Train one case, or take up its finished run, and score it."""
    case = CASES[name]
    began = time.process_time()
    run = finetune(
        case.data(work / f"{name}-data", shared),
        work / f"{name}-{strategy}",
        strategy=strategy,
        epochs=epochs,
        **case.options,
    )
    return {
        "task": run.task,
        "backbone": run.backbone,
        "schedule": run.settings["details"]["schedule"],
        "samples": run.dataset.sizes(),
        "trained": run.lineage.get("trained"),
        "cpu_seconds": round(time.process_time() - began, 1),
        "timing": run.lineage["timing"],
        "val": run.metrics.val,
        "start": run.metrics.start,
        "epochs": [run.metrics.best_epoch, run.metrics.epochs_run],
        "certify": certify_scores(run),
    }


def certify_scores(run: Run) -> dict[str, float]:
    """The trained model's own scores on the samples to certify on; nothing is chosen by them."""
    model = load_model(run)
    found = outputs(model, store_of(model.definition, run.dataset.paths("certify")), torch.device("cpu"))
    return scored(find_task(run.task), found, run.dataset.labels("certify")).to_json()


def main() -> None:
    """Measure what is asked for, beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--strategy", choices=(*STRATEGIES, *MORE), help="only this one")
    parser.add_argument("--epochs", type=int, help="passes over the training samples; the strategy's own by default")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/task_transfer.json"))
    given = parser.parse_args()
    held = read_json(given.out)["cases"] if given.out.is_file() else {}
    for name in given.names or CASES:
        for strategy in [given.strategy] if given.strategy else STRATEGIES:
            held[f"{name} {strategy}"] = measured(name, strategy, given.work, given.data, given.epochs)
            versions = {module: version(module) for module in ("edgetl", "torch", "timm", "sklearn", "tokenizers")}
            record = {"machine": machine(), "versions": versions, "threads": torch.get_num_threads()}
            write_json(given.out, {**record, "cases": held})


if __name__ == "__main__":
    main()
