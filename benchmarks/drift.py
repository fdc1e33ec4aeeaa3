"""How often the monitor raises a false alarm, and how soon it sees drift.

    python -m benchmarks.drift BUNDLE --data FOLDER [--most 400] [--streams 60] [--length 10000] [--out FILE]

BUNDLE reads pictures, and FOLDER is where its certify samples lie. False alarms: streams of independent numbers, with
as many characteristics and certified samples as the bundle's sketch has, watched for ``length`` samples at alpha 0.05;
and streams of real ones: half of the certify pictures, drawn again for each stream, are the certified ones, and the
other half comes. Delay: the same, and from one moment on each picture comes with one of the corruptions of ``verify
--corruptions``, at alpha 0.01; samples from that moment to the alarm, median over the streams.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.extras import version
from edgetl.base.progress import silent
from edgetl.base.storage import write_json
from edgetl.core.bundle import load_bundle
from edgetl.core.sketch import Sketch
from edgetl.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from edgetl.runtime.characteristics import of_input, of_outputs
from edgetl.runtime.drift import DriftTest
from edgetl.runtime.machine import machine
from edgetl.runtime.predictor import Predictor
from edgetl.tasks import find_task
from edgetl.workflow.answers import certify_files

RESULT = Path(__file__).parent / "results" / "drift.json"
#: Clean samples before drift begins.
MOMENTS = (0, 100)
#: Streams whose delay is measured.
DELAYS = 20
Table = npt.NDArray[np.float64]


def sketch(values: Table) -> Sketch:
    """Of samples, a row each."""
    return Sketch(len(values), {str(i): tuple(column) for i, column in enumerate(np.sort(values, axis=0).T.tolist())})


def alarm_at(certified: Table, stream: Table, alpha: float, seed: int) -> int | None:
    """The number of the sample that raises an alarm."""
    test = DriftTest(sketch(certified), alpha, seed)
    for row in stream.tolist():
        if test.add({str(i): value for i, value in enumerate(row)}):
            break
    return test.alarm_at


def table(predictor: Predictor, sources: Sequence[Any]) -> Table:
    """The characteristics of samples, a row each."""
    task, found = find_task(predictor.bundle.manifest.task), []
    for source in sources:
        feeds = predictor.feeds(source)
        answered = of_outputs(task, predictor.run(feeds))
        found.append([*of_input(feeds).values(), *(float(values[0]) for values in answered.values())])
    return np.array(found)


def false_alarms(n: int, columns: int, streams: int, length: int) -> dict[str, Any]:
    """Of independent numbers."""
    alarms = 0
    for seed in range(streams):
        rng = np.random.default_rng(seed)
        alarms += alarm_at(rng.normal(size=(n, columns)), rng.normal(size=(length, columns)), 0.05, seed) is not None
    return {"streams": streams, "length": length, "certified": n, "alpha": 0.05, "alarms": alarms}


def real_false_alarms(clean: Table, streams: int) -> dict[str, Any]:
    """Of real samples: one half comes after the other."""
    alarms = 0
    for seed in range(streams):
        order = np.random.default_rng(seed).permutation(len(clean))
        first, second = np.array_split(order, 2)
        alarms += alarm_at(clean[first], clean[second], 0.05, seed) is not None
    return {"streams": streams, "length": len(clean) // 2, "alpha": 0.05, "alarms": alarms}


def delay(clean: Table, drifted: Table, moment: int) -> dict[str, Any]:
    """Samples from the moment on which they are corrupted to the alarm."""
    found = []
    for seed in range(DELAYS):
        order = np.random.default_rng(seed).permutation(len(clean))
        first, second = np.array_split(order, 2)
        stream = np.concatenate([clean[second[:moment]], drifted[second[moment:]]])
        at = alarm_at(clean[first], stream, 0.01, seed)
        found.append(np.inf if at is None else at - moment)
    seen = [value for value in found if np.isfinite(value)]
    return {
        "seen": len(seen),
        "of": DELAYS,
        "median": float(np.median(found)) if len(seen) > DELAYS / 2 else None,
        "within": len(clean) // 2 - moment,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--most", type=int, default=400, help="certify pictures that are taken")
    parser.add_argument("--streams", type=int, default=60)
    parser.add_argument("--length", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    bundle = load_bundle(options.bundle)
    paths = certify_files(bundle, options.data, silent)[: options.most]
    delays: dict[str, Any] = {}
    with Predictor(bundle, threads=1) as predictor:
        clean = table(predictor, paths)
        accuracy = _accuracy(predictor, paths)
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                sources = [corrupted(path, name, severity) for path in paths]
                drifted = table(predictor, sources)
                key = f"{name} {severity}"
                delays[key] = {f"after {moment}": delay(clean, drifted, moment) for moment in MOMENTS}
                delays[key]["accuracy"] = _accuracy(predictor, sources)
                print(key, delays[key], flush=True)
    result = {
        "machine": machine(),
        "versions": {name: version(name) for name in ("numpy", "PIL", "onnxruntime")},
        "samples": len(paths),
        "accuracy": accuracy,
        "delays": delays,
        "false_alarms_of_real_samples": real_false_alarms(clean, 10 * options.streams),
        "false_alarms": false_alarms(len(clean) // 2, clean.shape[1], options.streams, options.length),
    }
    write_json(options.out, result)
    print(result["false_alarms"], result["false_alarms_of_real_samples"])


def _accuracy(predictor: Predictor, sources: Sequence[Any]) -> float:
    """Share of the certify samples that are answered rightly."""
    labels = predictor.bundle.dataset.labels("certify")[: len(sources)]
    said = [int(predictor.outputs(source)["logits"].argmax()) for source in sources]
    return float(np.mean(np.array(said) == labels))


if __name__ == "__main__":
    main()
