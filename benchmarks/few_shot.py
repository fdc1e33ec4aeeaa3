"""Few-shot heads on features of a backbone that never saw the alphabets: Omniglot, in float and in int8.

    python -m benchmarks.few_shot --data FOLDER --work FOLDER [--epochs 0] [--episodes 600] [--out FILE]

FOLDER holds ``omniglot``. The background are the characters of small1; episodes are of the alphabets of small2 that
small1 does not have, 5 characters each, 1 or 5 drawings of each and 15 others to be told. The backbone is ImageNet's
EfficientNet-Lite0 at 64 pixels, as it is, or fine-tuned on the background for some epochs. Its int8 features are those
of a bundle for x86-generic, read as ``edgetl enroll`` reads them; each head's rule
(:mod:`edgetl.transfer.class_means`) is fitted on the background's features of the same precision, and rows are made of
means as on a device. Then the 20 one-shot runs of Lake et al. (2015): 20 characters of one drawing each, against the
published 38.8 % error of the modified Hausdorff distance. Intervals are 95 %, of the mean over episodes or runs.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.extras import version
from edgetl.base.storage import read_json, write_json
from edgetl.compress.head import features
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.class_rule import ClassRule
from edgetl.inputs import input_of
from edgetl.pipeline import export
from edgetl.runtime.machine import machine
from edgetl.runtime.predict import predict
from edgetl.transfer import class_means
from edgetl.transfer.finetune import finetune

RESULT = Path(__file__).parent / "results" / "few_shot.json"
SIZE, WAYS, SHOTS, QUERIES, HAUSDORFF = 64, 5, (1, 5), 15, 0.388
Floats = npt.NDArray[np.float32]


def unpacked(data: Path, work: Path) -> Path:
    """The drawings of the background, of the other alphabets, and of the 20 runs, as files."""
    folder = work / "omniglot"
    for name in ("bg_small1", "bg_small2", "all_runs"):
        if not (folder / name).is_dir():
            with zipfile.ZipFile(data / "omniglot" / f"{name}.zip") as archive:
                archive.extractall(folder / name)
    return folder


def background(folder: Path, work: Path) -> Path:
    """A folder with a folder for each character of small1."""
    flat = work / "background"
    for file in sorted(folder.glob("bg_small1/*/*/*/*.png")):
        place = flat / f"{file.parts[-3]}-{file.parts[-2]}" / file.name
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return flat


def seen(bundle: Bundle, paths: Sequence[Path]) -> dict[str, Floats]:
    """What the head reads, (n, features), of the float backbone and of the int8 one."""
    feeds = (input_of(bundle).feeds(path) for path in paths)
    return {
        "float": features(bundle.exported, bundle.exported, feeds, simulated=False),
        "int8": next(iter(predict(bundle, paths, head="features").values())),
    }


def rules(x: Floats, labels: Sequence[str]) -> dict[str, ClassRule]:
    """Each kind's rule, fitted on four fifths of the background."""
    names = sorted(set(labels))
    y = np.array([names.index(label) for label in labels])
    held = np.arange(len(y)) % 5 == 0
    parts = (x[~held], y[~held]), (x[held], y[held])
    return {kind: class_means.fit(kind, *parts, len(names)).rule for kind in class_means.KINDS}


Episode = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def accuracies(x: Floats, rule: ClassRule, drawn: Sequence[Episode]) -> list[float]:
    """Share of the queries that are answered rightly, by rows that are made of the means of the support.

    Args:
        x: features, (n, d).
        rule: that makes rows of means.
        drawn: of each episode the rows of the support, (classes, shots), of the queries, (m,), and their classes, (m,).
    """
    prepared = rule.prepared(x)
    # All at once: the metric of 1280 features is a large matrix.
    means = np.concatenate([prepared[support].mean(1) for support, _, _ in drawn])
    weight, bias = rule.rows(means)
    found, start = [], 0
    for support, queries, truth in drawn:
        own = slice(start, start := start + len(support))
        told = (x[queries] @ weight[own].T + bias[own]).argmax(1)
        found.append(float((told == truth).mean()))
    return found


def summary(values: Sequence[float]) -> dict[str, float]:
    """The mean and the half of its 95 % interval."""
    half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return {"mean": round(float(np.mean(values)), 4), "plus_minus": round(half, 4), "n": len(values)}


def episodes(labels: Sequence[str], shots: int, count: int) -> list[Episode]:
    """The same for every rule and precision."""
    rng, names = np.random.default_rng(shots), sorted(set(labels))
    rows = {name: np.array([n for n, label in enumerate(labels) if label == name]) for name in names}
    found = []
    for _ in range(count):
        drawn = [rng.permutation(rows[name])[: shots + QUERIES] for name in rng.choice(names, WAYS, replace=False)]
        truth = np.repeat(np.arange(WAYS), [len(each) - shots for each in drawn])
        queries = np.concatenate([each[shots:] for each in drawn])
        found.append((np.stack([each[:shots] for each in drawn]), queries, truth))
    return found


def one_shot(folder: Path) -> tuple[list[Path], list[Episode]]:
    """The files of the 20 runs, and each run as an episode of 20 classes."""
    files, runs = list[Path](), list[Episode]()
    for place in sorted((folder / "all_runs").glob("run??")):
        pairs = [line.split() for line in (place / "class_labels.txt").read_text().splitlines()]
        train, start = sorted({answer for _, answer in pairs}), len(files)
        files += [folder / "all_runs" / name for name in (*train, *(asked for asked, _ in pairs))]
        support = np.arange(start, start + len(train))[:, None]
        truth = np.array([train.index(answer) for _, answer in pairs])
        runs.append((support, np.arange(start + len(train), len(files)), truth))
    return files, runs


def measured(bundle: Bundle, folder: Path, flat: Path, count: int) -> list[dict[str, Any]]:
    """A row for each kind of head and precision."""
    known = {place.name for place in (folder / "bg_small1/images_background_small1").iterdir()}
    other = [file for file in sorted(folder.glob("bg_small2/*/*/*/*.png")) if file.parts[-3] not in known]
    runs_files, runs = one_shot(folder)
    sources = {"background": sorted(flat.glob("*/*.png")), "other": other, "runs": runs_files}
    held = {name: seen(bundle, files) for name, files in sources.items()}
    labels = ["/".join(file.parts[-3:-1]) for file in other]
    several = {n: episodes(labels, n, count) for n in SHOTS}
    rows = []
    for precision in ("float", "int8"):
        fitted = rules(held["background"][precision], [file.parent.name for file in sources["background"]])
        x, z = held["other"][precision], held["runs"][precision]
        for kind, rule in fitted.items():
            errors = [1 - share for share in accuracies(z, rule, runs)]
            by_shots = {f"{n} shot": summary(accuracies(x, rule, drawn)) for n, drawn in several.items()}
            rows.append({"head": kind, "precision": precision, **by_shots, "20 runs, error": summary(errors)})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    work = options.work
    folder = unpacked(options.data, work)
    flat = background(folder, work)
    name, shared = "as it is", dict[str, Any](image_size=SIZE, accelerator="cpu")
    tuned = None
    if options.epochs:
        name = f"fine-tuned on the background, {options.epochs} epochs"
        tuned = finetune(flat, work / "tuned", strategy="fine-tune", epochs=options.epochs, **shared).path
    run = finetune(flat, work / f"run-{options.epochs}", strategy="prototype", from_run=tuned, **shared)
    (made,) = export(run, targets="x86-generic", out=work / f"out-{options.epochs}", bench=False, repair=False)
    rows = measured(load_bundle(made.bundle.path), folder, flat, options.episodes)
    kept = read_json(options.out)["backbones"] if options.out.is_file() else {}
    write_json(
        options.out,
        {
            "machine": machine(),
            "versions": {each: version(each) for each in ("edgetl", "torch", "onnxruntime", "sklearn")},
            "hausdorff_error": HAUSDORFF,
            "backbones": {**kept, name: {"certified": made.certificate.verdict, "rows": rows}},
        },
    )


if __name__ == "__main__":
    main()
