"""Which epoch each validator chooses without a label of the target, and what that costs.

    python -m benchmarks.validators --data FOLDER --work FOLDER [--strategy NAME …] [--way WAY …] [--seeds 1]
        [--samples 2000] [--epochs 12] [--out FILE]

On the digits of ``benchmarks.domain_adaptation``. After each epoch, every validator judges the samples of the target
that are set apart for it, and the labelled search split says what the model really reaches there. A validator's regret
is the best epoch's accuracy minus that of the one it chooses.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.domain_adaptation import WAYS, prepared
from edgetl.base.storage import read_json, write_json
from edgetl.transfer import train
from edgetl.transfer.assembly import Job, Setup
from edgetl.transfer.checkpoint import State
from edgetl.transfer.finetune import finetune
from edgetl.transfer.scores import Scores
from edgetl.transfer.stores import store_of
from edgetl.transfer.validators import VALIDATORS, judged

RESULT = Path(__file__).parent / "results" / "validators.json"
STRATEGIES = ("coral", "mmd", "dann")


def watched(source: Path, target: Path, out: Path, strategy: str, seed: int, epochs: int) -> list[dict[str, float]]:
    """Train, and judge each epoch by every validator and by the target's labels."""
    rows: list[dict[str, float]] = []
    close = train._close_epoch

    def judging(setup: Setup, job: Job, state: State, scores: Scores) -> None:
        assert job.streams.judged is not None
        apart, held, val = (
            train._answers(setup, store_of(job.definition, paths))
            for paths in (job.streams.judged.paths, job.dataset.paths("search"), job.dataset.paths("val"))
        )
        right = float((held.argmax(1) == job.dataset.labels("search")).mean())
        plain = Scores(scores.metrics, scores.loss, scores.n, "balanced_accuracy")
        source = (val, job.dataset.labels("val"))
        values = {name: judged(plain, each, apart, source).value for name, each in VALIDATORS.items()}
        rows.append({"epoch": state.epoch + 1, "target": right, **values})
        close(setup, job, state, scores)

    with mock.patch.object(train, "_close_epoch", judging):
        finetune(
            source, out, target_data=target, strategy=strategy, backbone="cnn", epochs=epochs, seed=seed, fresh=True
        )
    return rows


def regrets(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """What each validator's choice is below the best epoch."""
    best = max(row["target"] for row in rows)
    return {name: round(best - max(rows, key=lambda row: row[name])["target"], 4) for name in VALIDATORS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--strategy", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--way", nargs="+", default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    known: dict[str, Any] = read_json(options.out)["cells"] if options.out.is_file() else {}
    torch.set_num_threads(1)
    for seed in range(options.seeds):
        for way in options.way:
            source, target, _ = prepared(way, options.data.resolve(), options.work.resolve(), seed, options.samples)
            for strategy in options.strategy:
                key = f"{way} {strategy} {seed}"
                if key in known:
                    continue
                out = options.work.resolve() / f"watched-{way}-{strategy}-{seed}"
                rows = watched(source, target, out, strategy, seed, options.epochs)
                known[key] = {"regret": regrets(rows), "best": max(row["target"] for row in rows), "epochs": rows}
                mean = {name: float(np.mean([cell["regret"][name] for cell in known.values()])) for name in VALIDATORS}
                write_json(options.out, {"mean_regret": mean, "cells": known})
                print(key, known[key]["best"], known[key]["regret"], flush=True)


if __name__ == "__main__":
    main()
