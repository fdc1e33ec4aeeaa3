"""How well do search images foretell what an attempt loses on certify images? Three ways of telling, compared.

    python benchmarks/search_estimators.py WORK [--out FILE]

WORK is the folder of ``planted_faults.py --honest``: every attempt that its climbs made is run on both splits. For each
way, over all attempts: its correlation with the loss on certify images, and the root of the mean squared error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.storage import read_json, write_json
from edgetl.certify import expected_difference
from edgetl.core.bundle import Artifact, load_bundle
from edgetl.core.run import Run, load_run
from edgetl.core.targets import find_target
from edgetl.core.tensors import joined, single
from edgetl.inputs import input_of
from edgetl.runtime.machine import machine
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import open_session
from edgetl.runtime.transport import read_arrays

Logits = npt.NDArray[np.float32]
#: Attempts that lose more than this are told from good ones by any means.
MOST = 0.15


def attempts(work: Path) -> Iterator[tuple[str, Run, dict[str, Logits], dict[str, Logits]]]:
    """The name of every attempt, its run, and the logits of the trained model and of the attempt by split."""
    for export in sorted(work.glob("honest-*")):
        number = export.name.rpartition("-")[2]
        (run_folder,) = work.glob(f"probe-*-{number}")
        run, bundle = load_run(run_folder), load_bundle(next(export.glob("[!.]*")))
        target = find_target(bundle.target)
        (reference,) = export.glob(".work/reference-*")
        stored = {split: (reference / f"{split}.npz").read_bytes() for split in ("search", "certify")}
        trained = {split: single(read_arrays(data)) for split, data in stored.items()}
        feeds = {split: [input_of(run).feeds(p) for p in run.dataset.paths(split)] for split in trained}
        for folder in sorted(export.glob(".work/compressed-*")):
            told = read_json(folder / "compressed.json")
            if told["file"] is None or told["record"]["precision"] != "int8":
                continue
            artifact = Artifact(target.backend, folder / told["file"], "int8", target.runtime_device)
            simulated = target.executes_on_host() == "simulated"
            with closing(open_session(artifact, threads=2, simulated=simulated)) as session:
                found = {s: single(joined([infer(session, one) for one in feeds[s]])) for s in trained}
            yield f"{export.name} {folder.name}", run, trained, found


def measured(run: Run, trained: dict[str, Logits], found: dict[str, Logits]) -> dict[str, Any]:
    """The loss on certify images, and what the search images say of it in each way."""
    row: dict[str, Any] = {}
    for split in ("search", "certify"):
        labels = run.dataset.labels(split)
        before, after = (x[split].argmax(axis=1) == labels for x in (trained, found))
        row[split] = {
            "n": len(labels),
            "counted": float(after.mean() - before.mean()),
            "expected": expected_difference(trained[split], found[split], labels),
            "confidence": _log_likelihood(found[split], labels) - _log_likelihood(trained[split], labels),
        }
    return row


def _log_likelihood(logits: Logits, labels: npt.NDArray[np.int64]) -> float:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(log_softmax[np.arange(len(labels)), labels].mean())


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Correlation and error of each way, over the attempts that are not plainly broken."""
    kept = [row for row in rows if row["search"]["counted"] > -MOST]
    truth = np.array([row["certify"]["counted"] for row in kept])
    told = {way: np.array([row["search"][way] for row in kept]) for way in ("counted", "expected", "confidence")}
    return {
        "attempts": len(kept),
        "correlation": {way: round(float(np.corrcoef(values, truth)[0, 1]), 3) for way, values in told.items()},
        "rms_error_points": {
            way: round(100 * float(np.sqrt(np.mean((told[way] - truth) ** 2))), 2) for way in ("counted", "expected")
        },
    }


def main() -> None:
    """Measure all attempts and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search_estimators.json")
    chosen = parser.parse_args()
    rows = [{"attempt": name, **measured(run, trained, found)} for name, run, trained, found in attempts(chosen.work)]
    write_json(chosen.out, {"summary": summary(rows), "rows": rows, "machine": machine()})
    print(summary(rows))


if __name__ == "__main__":
    main()
