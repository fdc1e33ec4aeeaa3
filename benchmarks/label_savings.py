"""How many labels samples without labels need for the verdict that all labels would give, and how often that is wrong.

    EDGETL_TEST_DATA=DATA python -m benchmarks.label_savings --work FOLDER [--only PART] [--seeds 5] [--out FILE]

Parts: ``imagenet`` (EfficientNet-Lite0 with its ImageNet weights at 224 pixels, int8 by x86-64's recipe), ``magnetic``
(a bundle of a linear probe of it at 96 pixels, not repaired) and ``size`` (simulation).

The large unlabelled set is made of the images that a run held back for certification: each seed draws samples of
several sizes from what both models answered to them, with replacement. On each, all labels give a verdict, and so do
the labels of disagreeing images alone, given one after another in edgetl's own order until the verdict stands.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.certificates import told
from benchmarks.models import imagenet_run
from edgetl import pipeline
from edgetl.backends import BACKENDS
from edgetl.base.extras import version
from edgetl.base.progress import tracked
from edgetl.base.storage import read_json, write_json
from edgetl.certify import PairedCounts, Predictions, mcnemar_loss, noninferiority
from edgetl.certify.score import critical_value, score_statistic
from edgetl.certify.unconditional import MOST_DISCORDANT, tail
from edgetl.certify.unlabelled import Unlabelled
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe
from edgetl.core.bundle import PREDICTIONS, Artifact, Bundle, load_bundle
from edgetl.core.run import Run, load_run
from edgetl.core.targets import find_target
from edgetl.core.tensors import Arrays, joined
from edgetl.inputs import input_of
from edgetl.runtime.machine import machine
from edgetl.runtime.predict import inferred, several
from edgetl.tasks import find_task
from edgetl.transfer.finetune import finetune
from edgetl.workflow.reference import TorchReference

RESULT = Path(__file__).parent / "results" / "label_savings.json"
MARGINS, SIZES, ALPHA = (0.01, 0.02), (500, 1000, 2000), 0.05
#: Of the magnetic tiles: half certifies.
SHARES = {"train": 0.25, "val": 0.05, "calibration": 0.1, "search": 0.1, "certify": 0.5}
#: Pixels that the probe sees, so that its bundles are made in minutes.
PROBE_SIZE = 96
Indexes = npt.NDArray[np.int64]


def kept_by(bundle: Bundle) -> tuple[Unlabelled, Indexes]:
    """What both models of a bundle said of its certify split, and the truth."""
    saved = Predictions.load(bundle.path / PREDICTIONS)
    files = list(zip(saved.paths, saved.sha256, strict=True))
    logits = [{"logits": np.asarray(own, np.float32)} for own in (saved.reference_logits, saved.deployed_logits)]
    found = Unlabelled.of(find_task(saved.task), bundle.labels, files, (logits[0], logits[1]), "trained model", {})
    return found, saved.labels


def of_recipe(run: Run, work: Path, files: list[Path]) -> tuple[Arrays, Arrays]:
    """The same of a run, quantized as its target's recipe says, without the rest of an export."""
    target, source = find_target("x86-generic"), input_of(run)
    floating = work / "float.onnx"
    TorchReference(run).export(floating, None)
    feeds = (source.feeds(path) for path in run.dataset.paths("calibration"))
    made = quantize(floating, load_recipe(target.recipe("int8") or ""), feeds, work / "int8", told)
    artifacts = (
        Artifact("onnxruntime", floating, "fp32"),
        BACKENDS["onnxruntime"].compile(made.path, target, work / "x86"),
    )
    found = []
    for artifact in artifacts:
        with several(artifact) as sessions:
            feeds = (source.feeds(path) for path in tracked(files, artifact.precision, told))
            found.append(joined(list(inferred(sessions, feeds))))
    return found[0], found[1]


def chosen(found: Unlabelled, rows: Indexes) -> Unlabelled:
    """Some samples, perhaps several times, each as one of its own."""
    picked = {name: getattr(found, name)[rows] for name in ("reference", "deployed", "offered", "loss", "gain")}
    names = [f"{place}" for place in range(len(rows))]
    return Unlabelled(
        **picked,
        task=found.task,
        class_names=found.class_names,
        paths=tuple(names),
        sha256=tuple(names),
        answered_by=found.answered_by,
        left_out={},
        labels=np.zeros(len(rows), np.int64),
        known=np.zeros(len(rows), bool),
    )


def labels_used(turns: Sequence[int], n: int, margin: float) -> tuple[str, int]:
    """The verdict and the labels that it took, where each turn is −1 (lost), 1 (gained) or 0 (neither).

    A verdict that stands goes on standing with every further label, so halving finds the first.
    """

    def verdict(used: int) -> str:
        lost, gained = (list(turns[:used]).count(turn) for turn in (-1, 1))
        missing = len(turns) - used
        if passes(lost + missing, gained, n, margin):
            return "pass"
        return "fail" if fails(lost, gained + missing, n, margin) else "underpowered"

    low, high = -1, len(turns)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if verdict(middle) == "underpowered" else (low, middle)
    return verdict(high), high


def savings(found: Unlabelled, labels: Indexes, seeds: int, **more: Any) -> list[dict[str, Any]]:
    """Labels that each drawn sample takes, and whether the verdict is that of all labels."""
    rows = []
    right = [(answers == labels).astype(np.int64) for answers in (found.reference, found.deployed)]
    turned = right[1] - right[0]
    for seed in range(seeds):
        for n in SIZES:
            drawn = np.random.default_rng([seed, n]).integers(0, found.n, n)
            sample = chosen(found, drawn)
            for margin in MARGINS:
                order = sample.asked(margin, ALPHA)
                turns = turned[drawn[order]].tolist()
                verdict, used = labels_used(turns, n, margin)
                lost, gained = (int((turned[drawn] == sign).sum()) for sign in (-1, 1))
                whole = noninferiority(PairedCounts(n - lost - gained, lost, gained, 0), margin, ALPHA).verdict
                rows.append(
                    {**more, "seed": seed, "n": n, "margin": margin, "disagreed": len(order), "labels": used,
                     "share": used / n, "verdict": verdict, "all_labels": whole, "lost": lost, "gained": gained}
                )  # fmt: skip
    return rows


def bundles(run: Run, work: Path) -> list[tuple[str, Bundle]]:
    """Its int8 bundles for x86-64, as the recipe gives it and mended where it loses too much; made once."""
    made = []
    for name, repair in (("default", False), ("repaired", True)):
        folder = work / name / "x86-generic"
        if not (folder / "certificate.json").is_file():
            pipeline.export(
                run, targets=["x86-generic"], out=work / name, precision="int8", bench=False, repair=repair,
                budget_minutes=3, progress=told,
            )  # fmt: skip
        made.append((name, load_bundle(folder)))
    return made


def imagenet(data: Path, work: Path, seeds: int) -> list[dict[str, Any]]:
    """EfficientNet-Lite0 with its ImageNet weights, int8 by the recipe of x86-64."""
    folder = work / "imagenet"
    run, kept = imagenet_run(data / "imagenet-sample", folder / "run", 700), folder / "default.npz"
    if not kept.is_file():
        samples = run.dataset.split("certify")
        files = [(sample.path, sample.sha256) for sample in samples]
        outputs = of_recipe(run, folder, run.dataset.paths("certify"))
        Unlabelled.of(find_task(run.task), run.classes, files, outputs, "float ONNX file", {}).save(kept)
    return savings(Unlabelled.load(kept), run.dataset.labels("certify"), seeds, data="imagenet-sample")


def magnetic(data: Path, work: Path, seeds: int) -> list[dict[str, Any]]:
    """A linear probe of magnetic tiles: its bundle for x86-64 in int8, without repair."""
    folder = work / "magnetic"
    options: dict[str, Any] = {"strategy": "linear-probe", "image_size": PROBE_SIZE, "shares": SHARES}
    if not (folder / "run" / "run.json").is_file():
        finetune(data / "magnetic-tile", folder / "run", **options, progress=told)
    made = folder / "default" / "x86-generic"
    if not (made / PREDICTIONS).is_file():
        pipeline.export(
            load_run(folder / "run"), targets=["x86-generic"], out=folder / "default", precision="int8", bench=False,
            repair=False, progress=told,
        )  # fmt: skip
    found, labels = kept_by(load_bundle(made))
    return savings(found, labels, seeds, data="magnetic-tile")


def size(replicates: int = 4_000) -> list[dict[str, Any]]:
    """How often a model passes that lost the margin: without a label, and with labels of the disagreeing samples.

    Of the samples on which the two differ, ``neither`` is the share of those that neither gets right. A pass by few
    labels is one of all labels (the bounds hold whatever the others are), so that its rate is that of all labels at
    most, in whatever order and however long somebody labels.
    """
    cells = [(m, n, d, x) for m in MARGINS for n in (300, 1000, 3000) for d in (m, 2 * m, 5 * m) for x in (0.0, 0.3)]
    return [_size(*cell, replicates) for cell in cells]


def _size(margin: float, n: int, discordance: float, neither: float, replicates: int) -> dict[str, Any]:
    lost, gained = (discordance + margin) / 2, (discordance - margin) / 2
    disagreed = discordance / (1 - neither)
    shares = [lost, gained, disagreed - discordance, 1 - disagreed]
    tables = np.random.default_rng(0).multinomial(n, shares, replicates).tolist()
    without = sum(passes(one + other + third, 0, n, margin) for one, other, third, _ in tables)
    with_labels = sum(passes(one, other, n, margin) for one, other, _, _ in tables)
    rates = {"without_label": without / replicates, "with_labels": with_labels / replicates}
    cell = {"margin": margin, "n": n, "discordance": discordance, "neither": neither, "replicates": replicates}
    return {**cell, "disagreement": disagreed, **rates}


@lru_cache(maxsize=1_000_000)
def passes(lost: int, gained: int, n: int, margin: float) -> bool:
    """Whether the paired test passes: what :func:`edgetl.certify.noninferiority` says, without its other figures."""
    return _above(lost, gained, n, -margin)


@lru_cache(maxsize=1_000_000)
def fails(lost: int, gained: int, n: int, margin: float) -> bool:
    """Whether it fails, likewise."""
    seen = (gained - lost) / n <= -margin and float(mcnemar_loss(lost, gained)) < ALPHA
    return seen or _above(gained, lost, n, margin)


def _above(lost: int, gained: int, n: int, difference: float) -> bool:
    """Whether the lower bound of the true difference is above ``difference``."""
    if float(score_statistic(lost, gained, n, difference)) <= critical_value(ALPHA):
        return False
    return lost + gained > MOST_DISCORDANT or tail(lost, gained, n, ALPHA).probability(difference) <= ALPHA


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds: labels as a share of the samples, and verdicts that differ from those of all labels."""
    keys = sorted({(r["data"], r["n"], r["margin"]) for r in rows})
    told_of = []
    for data, n, margin in keys:
        own = [r for r in rows if (r["data"], r["n"], r["margin"]) == (data, n, margin)]
        told_of.append({
            "data": data, "n": n, "margin": margin, "seeds": len(own),
            "labels": float(np.mean([r["labels"] for r in own])),
            "share": float(np.mean([r["share"] for r in own])), "worst_share": max(r["share"] for r in own),
            "verdicts": sorted({r["verdict"] for r in own}),
            "other_verdicts": sum(r["verdict"] != r["all_labels"] for r in own),
        })  # fmt: skip
    return told_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=("imagenet", "magnetic", "size"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    data = Path(os.environ.get("EDGETL_TEST_DATA", ""))
    kept = read_json(given.out) if given.out.is_file() else {}
    result: dict[str, Any] = kept if isinstance(kept, dict) else {}
    if given.only in (None, "size"):
        result["size"] = size()
    for name, part in (("imagenet", imagenet), ("magnetic", magnetic)):
        if given.only in (None, name):
            result[name] = part(data, given.work, given.seeds)
            result[f"{name}_summary"] = summary(result[name])
    packages = {name: version(name) for name in ("numpy", "onnxruntime", "torch", "timm")}
    write_json(given.out, {**result, "machine": machine(), "versions": packages})


if __name__ == "__main__":
    main()
