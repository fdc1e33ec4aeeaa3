"""Faults planted in copies of a healthy bundle, as a broken exporter would; broken runners are in ``runners.py``."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgetl.backends import BACKENDS
from edgetl.base.schema import from_json
from edgetl.base.storage import read_json, sha256_file, write_json
from edgetl.compress import graph
from edgetl.compress.layers.points import read_points
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import Recipe
from edgetl.core.bundle import CALIBRATION, LABELS, PREPROCESS_FILE, Artifact, Bundle, load_bundle, write_manifest
from edgetl.core.compression import Quantization
from edgetl.core.data import Sample
from edgetl.core.targets import find_target
from edgetl.inputs import input_of, preprocess_of
from edgetl.inputs.image import Preprocess
from tests.diagnosis.tampering import edit_ir, edit_onnx

Pixels = npt.NDArray[np.uint8]
Images = Iterable[npt.NDArray[np.uint8]]


def copied(bundle: Bundle, folder: Path) -> Path:
    """The files of a bundle, without its records, ready to be damaged."""
    shutil.copytree(bundle.path, folder, ignore=shutil.ignore_patterns("certificate.json", "predictions.npz"))
    return folder


def sealed(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    """Seal the folder as if it had come out of the exporter like that."""
    artifacts = {
        role: Artifact(a.backend, folder / a.file, a.precision, a.device)
        for role, a in bundle.manifest.artifacts.items()
    }
    write_manifest(folder, dataclasses.replace(bundle.manifest, **changes), artifacts)
    return load_bundle(folder)


def recipe_of(bundle: Bundle) -> Recipe:
    """How the healthy bundle was quantized."""
    return from_json(Recipe, quantization_of(bundle).recipe, "the recipe")


def quantization_of(bundle: Bundle) -> Quantization:
    """How the manifest says that it was quantized."""
    assert bundle.manifest.quantization is not None
    return bundle.manifest.quantization


def calibration_images(bundle: Bundle) -> list[Pixels]:
    """The images that its record names, uint8 (1, H, W, 3) each."""
    listed = read_json(bundle.path / CALIBRATION)["samples"]
    return [input_of(bundle).feeds(bundle.dataset.root / entry["path"])["image"] for entry in listed]


def quantized_again(bundle: Bundle, folder: Path, images: Images, exported: Path | None = None, **recipe: Any) -> None:
    """Put an artifact into ``folder`` that was quantized from other images, another graph or by another recipe."""
    target = find_target(bundle.target)
    settings = dataclasses.replace(recipe_of(bundle), **recipe)
    made = quantize(
        exported or bundle.source,
        settings,
        ({"image": image} for image in images),
        folder.parent / f".{folder.name}.work",
    )
    BACKENDS[target.backend].compile(made.path, target, folder / bundle.artifact().path.parent.relative_to(bundle.path))


# --- the graph's own preprocessing: faults 1, 2 and 6


def bgr(model: Any) -> None:
    """Reverse the channels of the image before they are made planes."""
    _between(
        model,
        "Transpose",
        lambda x: [helper.make_node("Gather", [x, "bgr"], ["flipped"], "flip", axis=3)],
        {"bgr": np.array([2, 1, 0])},
    )


def normalised_by(mean: Sequence[float], std: Sequence[float], right: Preprocess) -> Callable[[Any], None]:
    """Change the normalisation to another mean and standard deviation."""
    gain = np.array(right.std) / np.array(std)
    shift = (np.array(right.mean) - np.array(mean)) / np.array(std)

    def edit(model: Any) -> None:
        arrays = {n: v.astype(np.float32).reshape(1, 3, 1, 1) for n, v in (("gain", gain), ("shift", shift))}
        nodes = [
            helper.make_node("Mul", ["", "gain"], ["gained"], "gain"),
            helper.make_node("Add", ["gained", "shift"], ["shifted"], "shift"),
        ]
        _between(model, "Conv", lambda x: [_reading(nodes[0], x), nodes[1]], arrays)

    return edit


def mixed_up(model: Any) -> None:
    """Reinterpret NHWC memory as NCHW where a transposition is needed."""
    node = next(n for n in model.graph.node if n.op_type == "Transpose")
    sizes = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    shape = np.array([0 if not sizes[0] else sizes[0], 3, sizes[1], sizes[2]])
    model.graph.initializer.append(numpy_helper.from_array(shape, "planes"))
    node.op_type = "Reshape"
    node.input.append("planes")
    del node.attribute[:]


def _reading(node: Any, tensor: str) -> Any:
    node.input[0] = tensor
    return node


def _between(model: Any, kind: str, build: Callable[[str], list[Any]], arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Insert nodes before the first node of a kind."""
    first = next(n for n in model.graph.node if n.op_type == kind)
    position = list(model.graph.node).index(first)
    made = build(first.input[0])
    first.input[0] = made[-1].output[0]
    for offset, node in enumerate(made):
        model.graph.node.insert(position + offset, node)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())


def faulty_graph(bundle: Bundle, folder: Path, edit: Callable[[Any], None]) -> Bundle:
    """A bundle whose artifact was made from a damaged copy of its exported graph."""
    copied(bundle, folder)
    model = onnx.load(str(bundle.exported))
    edit(model)
    del model.graph.value_info[:]
    damaged = graph.save(onnx.shape_inference.infer_shapes(model), folder.parent / f"{folder.name}.onnx")
    quantized_again(bundle, folder, calibration_images(bundle), damaged)
    return sealed(bundle, folder)


# --- files that contradict the run: faults 4, 5, 7, 10 and 13


def other_preprocess(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    """A ``preprocess.json`` that is not training's."""
    copied(bundle, folder)
    write_json(folder / PREPROCESS_FILE, dataclasses.replace(preprocess_of(bundle), **changes).to_json())
    return sealed(bundle, folder)


def permuted_labels(bundle: Bundle, folder: Path) -> Bundle:
    """``labels.json`` in another order, say the alphabet's."""
    copied(bundle, folder)
    names = [*bundle.labels[1:], bundle.labels[0]]
    write_json(folder / LABELS, names)
    return sealed(bundle, folder)


def calibrated_on(bundle: Bundle, folder: Path, samples: Sequence[Sample]) -> Bundle:
    """Ranges of these images, and a record that says so."""
    copied(bundle, folder)
    root = bundle.dataset.root
    quantized_again(bundle, folder, [input_of(bundle).feeds(root / s.path)["image"] for s in samples])
    record = read_json(folder / CALIBRATION)
    images = [{"path": s.path, "label": s.label, "sha256": sha256_file(root / s.path)} for s in samples]
    write_json(folder / CALIBRATION, {**record, "size": len(images), "samples": images})
    return sealed(bundle, folder, quantization=dataclasses.replace(quantization_of(bundle), samples=len(images)))


def of_one_class(bundle: Bundle, folder: Path) -> Bundle:
    """Ranges of one class."""
    samples = bundle.dataset.split("calibration")
    (label, _), *_ = Counter(s.label for s in samples).most_common()
    return calibrated_on(bundle, folder, [s for s in samples if s.label == label])


def of_four(bundle: Bundle, folder: Path) -> Bundle:
    """Ranges of four images."""
    samples = bundle.dataset.split("calibration")
    return calibrated_on(bundle, folder, samples[:: len(samples) // 4][:4])


def overlapping(bundle: Bundle, folder: Path) -> Bundle:
    """Ranges of certify images, among others."""
    dataset = bundle.dataset
    return calibrated_on(bundle, folder, [*dataset.split("calibration")[:20], *dataset.split("certify")[:20]])


# --- ranges that their record lies about: faults 8, 11 and 15


def of_noise(bundle: Bundle, folder: Path, *, normal: bool = False) -> Bundle:
    """Ranges of random noise; the record still names images."""
    copied(bundle, folder)
    draw = np.random.default_rng(1)
    shape = (32, 1, preprocess_of(bundle).height, preprocess_of(bundle).width, 3)
    values = draw.normal(127, 50, shape) if normal else draw.integers(0, 256, shape)
    quantized_again(bundle, folder, list(np.clip(values, 0, 255).astype(np.uint8)))
    return sealed(bundle, folder)


def stale(bundle: Bundle, folder: Path, other: Bundle) -> Bundle:
    """Ranges that were taken from another model's bundle of the same architecture and target."""
    copied(bundle, folder)
    path = folder / bundle.artifact().path.relative_to(bundle.path)
    if path.suffix == ".xml":
        edit_ir(path, ranges_of=other.artifact().path)
    else:
        edit_onnx(path, ranges_of=other.artifact().path)
    return sealed(bundle, folder)


def saturating(bundle: Bundle, folder: Path) -> Bundle:
    """Scales for unsigned activations in signed types: whatever is never negative loses its upper half."""
    copied(bundle, folder)
    path = folder / bundle.artifact().path.relative_to(bundle.path)
    (edit_ir if path.suffix == ".xml" else edit_onnx)(path, halve=True)
    return sealed(bundle, folder)


# --- weights: faults 7, 12, 16 and 17


def rewritten(bundle: Bundle, folder: Path, weights: Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]]) -> Bundle:
    """A bundle whose artifact's stored integers went through ``weights(layer name, array by output channel)``."""
    copied(bundle, folder)
    path = folder / bundle.artifact().path.relative_to(bundle.path)
    (edit_ir if path.suffix == ".xml" else edit_onnx)(path, weights=weights)
    return sealed(bundle, folder)


def permuted_rows(classes: int) -> Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]]:
    """The head's rows in another order."""
    return lambda name, array: np.roll(array, 1, axis=0) if len(array) == classes and array.ndim == 2 else array


def damaged_row(classes: int, row: int = 1) -> Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]]:
    """One row of the head overwritten."""

    def edit(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if len(array) == classes and array.ndim == 2:
            array[row] = np.random.default_rng(0).integers(-127, 128, array[row].shape)
        return array

    return edit


def dead_channel(layer: str, channel: int) -> Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]]:
    """One output channel of a layer zeroed."""

    def edit(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if layer in name:
            array[channel] = 0
        return array

    return edit


def middle_layer(bundle: Bundle) -> tuple[str, int]:
    """A layer in the middle of the network, and its channel of median weights."""
    points = read_points(bundle.artifact().path, bundle.source)
    weighted = [(point.node, point.weight) for point in points if point.weight is not None]
    node, weight = weighted[len(weighted) // 2]
    norms = np.linalg.norm(weight.reshape(len(weight), -1), axis=1)
    return node, int(np.argsort(norms)[len(norms) // 2])


def per_tensor(bundle: Bundle, folder: Path) -> Bundle:
    """One weight scale for each depthwise layer."""
    copied(bundle, folder)
    path = folder / bundle.artifact().path.relative_to(bundle.path)
    if path.suffix == ".xml":
        edit_ir(path, one_scale=True)
    else:
        quantized_again(bundle, folder, calibration_images(bundle), per_channel=False)
    return sealed(bundle, folder)
