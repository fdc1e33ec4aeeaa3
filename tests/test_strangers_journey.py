"""A stranger's task and a stranger's target, each one file (and one line), all the way to a certificate."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.copies import Copy

GRADES = '''
"""Which of several grades, in order, a sample has: an answer is the worse, the further off it is."""

from dataclasses import replace

import numpy as np

from edgetl.tasks import classification
from edgetl.tasks.base import Metric, Sums


def evidence(answers, labels):
    off = np.abs(answers["class"] - labels).astype(float)
    return {**classification.evidence(answers, labels), "samples": np.ones_like(off), "off": off}


def unseen(reference, deployed):
    most = max(float(reference["label"].max()), float(deployed["off"].max()))
    return tuple({"samples": np.array([1.0]), "off": np.array([off])} for off in (0.0, most))


OFF = Sums(lambda of: np.stack([of["samples"], of["off"]], axis=1), lambda sums: sums[:, 1] / sums[:, 0])
TASK = replace(
    classification.TASK,
    name="grades",
    about="which of several grades in order a sample has",
    evidence=evidence,
    metrics={"off": Metric("mean distance in grades", OFF.weighed, "lower", "", 0.05, sums=OFF, unseen=unseen)},
)
'''

COUNT = '''
"""How many there are of something in a sample."""

from dataclasses import replace

import numpy as np

from edgetl.tasks import regression
from edgetl.tasks.base import Metric


def counts(answers):
    return np.maximum(np.rint(answers["values"].reshape(-1)), 0)


def share(evidence, weights):
    return weights @ evidence["right"] / weights.sum(axis=1)


TASK = replace(
    regression.TASK,
    name="count",
    about="how many there are of something in a sample",
    evidence=lambda answers, labels: {**regression.evidence(answers, labels), "right": counts(answers) == labels},
    metrics={
        "accuracy": Metric("share of right counts", share, "higher", "share", 0.01, right=lambda rows: rows["right"]),
        "mae": regression.TASK.metrics["mae"],
    },
    describe=lambda answers, classes, top: [{"value": int(count)} for count in counts(answers)],
)
'''

TASKS = {"grades": GRADES, "count": COUNT}

TARGET = """
name = "shelf-pc"
title = "The computer on our shelf"
family = "x86"
backend = "onnxruntime"
isa = "x86-64"
arch = "x86_64"
precisions = ["fp32", "int8"]
default_precision = "int8"
compile_on = "host"
aliases = ["shelf"]

[recipes]
int8 = "ort-x86-int8"

[[sources]]
figures = ["precisions"]
title = "ONNX Runtime documentation, quantize ONNX models"
url = "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html"
"""

JOURNEY = """
import json, edgetl
found = {}
for task, data in (('grades', 'grades.npz'), ('count', 'count.npz')):
    run = edgetl.finetune(data, f'{task}-run', task=task, epochs=2, accelerator='cpu', precision='32-true')
    targets = ['x86-generic', 'shelf'] if task == 'grades' else ['x86-generic']
    made = [item.bundle.path for item in edgetl.export(run, targets=targets, out=f'{task}-out', bench=False)]
    (listed,) = (each for each in edgetl.list_tasks() if each['name'] == task)
    others = [edgetl.verify(made[0], metric=metric['name']).to_json() for metric in listed['metrics'][1:]]
    found[task] = {
        'certificates': [edgetl.verify(path).to_json() for path in made],
        'others': others,
        'problems': [edgetl.check(path) for path in made],
        'answer': edgetl.predict(made[0], [run.dataset.paths('certify')[0]])[0].to_json(),
        'val': run.metrics.val,
        'page': edgetl.report([run, *made], 'report.html').read_text(),
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Two tasks, one target, and data for them: six numbers a sample say nearly what it is, from 0 to 3."""
    copy = Copy.made(tmp_path_factory.mktemp("stranger") / "copy")
    for name, content in TASKS.items():
        copy.add(f"edgetl/tasks/{name}.py", content)
        copy.enter("edgetl/tasks/__init__.py", name, before="multi_label")
    copy.add("targets/shelf-pc/target.toml", TARGET)
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (300, 6)).astype(np.float32)
    y = np.digitize(x @ [1.0, 0.7, 0.0, 0.0, 0.3, 0.0] + rng.normal(0, 0.2, len(x)), [-1, 0, 1])
    np.savez(copy.root / "grades.npz", x=x, y=y)
    np.savez(copy.root / "count.npz", x=x, target=y)
    return copy


@pytest.fixture(scope="module")
def journey(extended: Copy) -> dict[str, Any]:
    """What came of both tasks, in one process, which loads torch once."""
    return dict(extended.run(JOURNEY))


@pytest.mark.parametrize(("task", "metric"), [("grades", "off"), ("count", "accuracy")])
def test_a_task(journey: dict[str, Any], task: str, metric: str) -> None:
    found = journey[task]
    certificate = found["certificates"][0]
    assert (certificate["task"], certificate["metric"], certificate["precision"]) == (task, metric, "int8")
    assert certificate["executed"] == "host"
    assert [rung["name"] for rung in certificate["ladder"]] == ["reference", "float ONNX", "Q/DQ in float", "deployed"]
    assert set(found["val"]) >= set(certificate["scores"])
    assert found["problems"][0] is None
    assert "lost and gained" in found["page"]
    assert {"grades": "labels", "count": "value"}[task] in found["answer"]


def test_metrics_of_a_task_in_units_of_their_own(journey: dict[str, Any]) -> None:
    """Counts are right or wrong, and off by so many: rungs are measured in what decides."""
    (certificate,) = journey["count"]["others"]
    assert certificate["metric"] == "mae"
    assert certificate["difference"] == certificate["scores"]["mae"]["difference"]
    rungs = sum(rung["difference"] or 0.0 for rung in certificate["ladder"])
    assert rungs == pytest.approx(certificate["difference"], abs=1e-9)


def test_a_target(extended: Copy, journey: dict[str, Any]) -> None:
    listed = extended.run("from edgetl.cli import main; main()", "targets", "--json")
    assert "shelf-pc" in [target["name"] for target in listed["targets"]]
    generic, own = journey["grades"]["certificates"]
    assert journey["grades"]["problems"][1] is None
    assert own["hashes"]["manifest"] != generic["hashes"]["manifest"]
    assert (own["isa"], own["precision"], own["executed"]) == ("x86-64", "int8", "host")
    manifest = json.loads((extended.root / "grades-out" / "shelf" / "manifest.json").read_text())
    assert manifest["target"]["title"] == "The computer on our shelf"
