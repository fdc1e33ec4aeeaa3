"""What pruning is worth: the int8 artifact of a fine-tuned network, and of the same without some of its channels.

    python -m benchmarks.pruning DATA --work FOLDER [--size 96] [--ratios 0.25 0.5] [--out FILE]

Every run has the same samples and seed. A pruned one starts from the fine-tuned one, as does one that is only trained
again, for as many epochs. Each is exported for x86-generic in int8, where repair may climb as it does for everybody.
All artifacts are timed in one process, in turns, at one thread; accuracy is that of the artifacts on the certify split,
against the unpruned one's in pairs, as in a certificate.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl import pipeline
from edgetl.base.extras import version
from edgetl.base.progress import silent
from edgetl.base.schema import to_json
from edgetl.base.storage import write_json
from edgetl.certify import verify_arrays
from edgetl.compress.layers.topology import read_topology
from edgetl.core.bundle import Bundle
from edgetl.core.run import Run
from edgetl.inputs import input_of
from edgetl.latency.stats import percentile, speedup
from edgetl.runtime.machine import machine
from edgetl.runtime.measure import interleave
from edgetl.runtime.sensors import state
from edgetl.runtime.sessions import open_session
from edgetl.transfer.finetune import finetune
from edgetl.workflow.reference import TorchReference

RESULT = Path(__file__).parent / "results" / "pruning.json"
TARGET, WHOLE = "x86-generic", "whole"
#: Samples that are fed in rotation.
FED = 32


def runs(given: argparse.Namespace) -> dict[str, Run]:
    """All cells, trained unless they are there."""
    budget: dict[str, Any] = {"epochs": given.epochs, "seed": given.seed}
    found = {WHOLE: finetune(given.data, given.work / WHOLE, image_size=given.size, **budget)}
    budget |= {"epochs": given.again, "from_run": found[WHOLE].path}
    for ratio in given.ratios:
        name, options = f"pruned {ratio:g}", {"ratio": ratio, "multiple": given.multiple}
        found[name] = finetune(given.data, given.work / name, strategy="prune", set=options, **budget)
    found["trained again"] = finetune(given.data, given.work / "trained again", **budget)
    return found


def exported(run: Run, given: argparse.Namespace) -> Bundle:
    """Its int8 bundle, as everybody gets it."""
    out = given.work / f"{run.path.name} bundle"
    (done,) = pipeline.export(run, targets=[TARGET], out=out, bench=False, budget_minutes=given.minutes)
    return done.bundle


def answers(bundle: Bundle, run: Run) -> npt.NDArray[np.int64]:
    """Classes that the artifact gives the certify samples."""
    session, definition = open_session(bundle.artifact(), threads=1), input_of(run)
    files = run.dataset.paths("certify")
    found = [next(iter(session.run(definition.feeds(file)).values())).argmax() for file in files]
    session.close()
    return np.asarray(found, np.int64)


def macs(bundle: Bundle) -> int:
    """Multiply-accumulates for one sample."""
    topology = read_topology(bundle.exported)
    return sum(topology.macs(node) for node in topology.weighted())


def timings(bundles: Mapping[str, Bundle], run: Run, seconds: float) -> dict[str, dict[str, Any]]:
    """Median latency of each artifact, how many times as fast as the unpruned one it is, and what was executed."""
    sessions = {name: open_session(bundle.artifact(), threads=1) for name, bundle in bundles.items()}
    feeds = [input_of(run).feeds(file) for file in run.dataset.paths("certify")[:FED]]
    found = interleave(sessions, feeds, seconds=seconds)
    rows = {}
    for name, session in sessions.items():
        rows[name] = {
            "p50_ms": to_json(percentile(found[name], 0.5)),
            "speedup": to_json(speedup(found[WHOLE], found[name])),
            "timed": len(found[name]),
            "executed": vars(session.executed()),
        }
        session.close()
    return rows


def told(run: Run, bundle: Bundle, against: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> dict[str, Any]:
    """What a run and its artifact reach on the certify split, and how large they are."""
    labels, repair = run.dataset.labels("certify"), bundle.repair
    (logits,) = TorchReference(run).outputs("certify", silent).values()
    tested = verify_arrays(reference=against, deployed=found, labels=labels)
    return {
        "float_accuracy": float((logits.argmax(1) == labels).mean()),
        "accuracy": float((found == labels).mean()),
        "n": len(labels),
        "against_whole": [tested.difference, tested.ci_low, tested.ci_high],
        "verdict": None if bundle.certificate is None else bundle.certificate.verdict,
        "repair": None if repair is None else repair.chosen,
        "macs": macs(bundle),
        "bytes": bundle.artifact().size_bytes,
        "pruned": run.lineage.get("pruned"),
        "train_seconds": run.lineage["timing"]["train_seconds"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--again", type=int, default=15, help="epochs of those that start from the first run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--multiple", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=3.0, help="that repair may take for each artifact")
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing, for all artifacts together")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    given.data, given.work = given.data.resolve(), given.work.resolve()
    trained = runs(given)
    bundles = {name: exported(run, given) for name, run in trained.items()}
    before, timed = state(), timings(bundles, trained[WHOLE], given.seconds)
    found = {name: answers(bundle, trained[name]) for name, bundle in bundles.items()}
    rows = {
        name: {**told(run, bundles[name], found[WHOLE], found[name]), **timed[name]} for name, run in trained.items()
    }
    here, options = machine(), ("size", "epochs", "again", "seed", "multiple", "minutes", "seconds")
    about = {
        "data": given.data.name,
        **{name: getattr(given, name) for name in options},
        "machine": {"cpu_model": here["cpu_model"], "cores": here["cores"], "before": before, "after": state()},
        "versions": {name: version(name) for name in ("torch", "timm", "modelopt", "onnxruntime")},
    }
    write_json(given.out, {**about, "runs": rows})
    for name, row in rows.items():
        print(f"{name:15} {row['accuracy']:.3f} {row['macs'] / 1e6:.1f} M {row['p50_ms']['value']:.2f} ms "
              f"{row['speedup']['value']:.2f}x", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
