"""The runner's answers are those of ``predict`` in Python: each task, several at once, any batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgetl.backends.tflite import convert
from edgetl.core.bundle import Artifact, Bundle, load_bundle
from edgetl.inputs import Preprocess
from edgetl.runtime import open_bundle
from tests.runner import ugly
from tests.runner.built import Runner
from tests.runner.test_pixels import written
from tests.runtime.tiny import HEIGHT, PREPROCESS, WIDTH, model, pictures, save_onnx, seal, text_bundle

#: Outputs of a network that weighs the means of the three channels.
LABELS = ("ash", "birch", "cedar", "fir")


def colour_bundle(folder: Path, task: str, outputs: dict[str, int], names: tuple[str, ...]) -> Bundle:
    """A network whose outputs, by name and width, are sums of the picture's mean colours."""
    rng = np.random.default_rng(len(outputs))
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["colour"], keepdims=0),
        helper.make_node("Sub", ["colour", "middle"], ["signed"]),
    ]
    constants: dict[str, Any] = {"axes": np.array([1, 2]), "middle": np.full((1, 3), 110, np.float32)}
    for name, width in outputs.items():
        constants[f"{name}.w"] = rng.normal(0, 0.1, (3, width)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", ["signed", f"{name}.w"], [name]))
    given = {"image": (TensorProto.UINT8, ["n", HEIGHT, WIDTH, 3])}
    shapes = {name: ["n", width] for name, width in outputs.items()}
    path = save_onnx(folder / "model/model.onnx", nodes, given, shapes, constants)
    images = pictures(3)
    signed = images.astype(np.float32).mean(axis=(1, 2)) - 110
    vectors = {f"out.{name}": signed @ constants[f"{name}.w"] for name in outputs}
    artifact = Artifact("onnxruntime", path, "fp32")
    return seal(folder, artifact, vectors={"in.image": images, **vectors}, names=names, task=task)


def compare(runner: Runner, bundle: Bundle, paths: list[Path], top: int = 3) -> None:
    """Answers and outputs of each picture, against Python's."""
    lines = runner.lines("--outputs", "--top", top, bundle.path, paths=paths)
    with open_bundle(bundle, threads=1) as network:
        for path, line in zip(paths, lines, strict=True):
            for name, values in network.outputs(path).items():
                assert np.array_equal(np.array(line["outputs"][name], np.float32), values[0])
            assert flat(line["answer"]) == pytest.approx(flat(network.predict(path, top=top).to_json()), rel=1e-12)


def flat(value: Any, at: str = "") -> dict[str, Any]:
    """Numbers by where they stand; labels are part of that."""
    if isinstance(value, dict) and set(value) == {"label", "probability"}:
        return {f"{at}/{value['label']}": value["probability"]}
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: found for name, part in items for key, found in flat(part, f"{at}/{name}").items()}
    return {at: value}


@pytest.fixture
def photos_of_all_sorts(tmp_path: Path) -> list[Path]:
    return written(tmp_path / "pictures", list(ugly.jpegs())[:12])


def test_one_class(ort: Runner, tmp_path: Path, photos_of_all_sorts: list[Path]) -> None:
    bundle = colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS)
    compare(ort, bundle, photos_of_all_sorts)
    compare(ort, bundle, photos_of_all_sorts, top=9)


def test_several_labels(ort: Runner, tmp_path: Path, photos_of_all_sorts: list[Path]) -> None:
    bundle = colour_bundle(tmp_path / "bundle", "multi-label", {"logits": 4}, LABELS)
    compare(ort, bundle, photos_of_all_sorts, top=1)
    compare(ort, bundle, photos_of_all_sorts)


def test_a_value(ort: Runner, tmp_path: Path, photos_of_all_sorts: list[Path]) -> None:
    compare(ort, colour_bundle(tmp_path / "bundle", "regression", {"values": 1}, ()), photos_of_all_sorts)


def test_several_tasks(ort: Runner, tmp_path: Path, photos_of_all_sorts: list[Path]) -> None:
    task = "tree:classification+age:regression+seen:multi-label"
    names = ("tree: ash", "tree: fir", "tree: oak", "seen: dog", "seen: cat")
    bundle = colour_bundle(tmp_path / "bundle", task, {"tree": 3, "age": 1, "seen": 2}, names)
    compare(ort, bundle, photos_of_all_sorts, top=2)


@pytest.mark.parametrize("batch", [None, 3])
def test_a_network_of_any_and_of_a_fixed_batch(
    ort: Runner, tmp_path: Path, photos_of_all_sorts: list[Path], batch: int | None
) -> None:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    onnx.save(model(batch), folder / "model/model.onnx")
    bundle = seal(folder, Artifact("onnxruntime", folder / "model/model.onnx", "fp32"))
    compare(ort, bundle, photos_of_all_sorts)


def test_the_float_twin(ort: Runner, tmp_path: Path, photos_of_all_sorts: list[Path]) -> None:
    folder = tmp_path / "bundle"
    for name, seed in (("model", 0), ("float", 5)):
        (folder / name).mkdir(parents=True)
        onnx.save(model(seed=seed), folder / name / "model.onnx")
    artifacts = [Artifact("onnxruntime", folder / name / "model.onnx", "fp32") for name in ("model", "float")]
    bundle = seal(folder, artifacts[0], artifacts[1])
    lines = ort.lines("--role", "float", "--outputs", bundle.path, paths=photos_of_all_sorts)
    with open_bundle(bundle, role="float", threads=1) as twin:
        for path, line in zip(photos_of_all_sorts, lines, strict=True):
            values = twin.outputs(path)["logits"][0]
            assert np.array_equal(np.array(line["outputs"]["logits"], np.float32), values)


def test_a_trained_network(ort: Runner, tiny_bundle: Path, tiny_run: Path) -> None:
    paths = sorted((tiny_run.parent / "photos").rglob("*.png"))[::7]
    compare(ort, load_bundle(tiny_bundle), paths)
    done = ort.run("--self-test", tiny_bundle)
    check = json.loads(done.stdout)["self_test"]
    assert check["max_difference"] == 0
    assert check["input_difference"] == 0
    assert check["samples"] == 4


def test_text_is_refused(ort: Runner, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers (edgetl[text]) cuts texts into tokens")
    done = ort.run(text_bundle(tmp_path / "bundle").path)
    assert done.returncode == 8
    assert "text-classification" in done.stderr


def test_a_picture_that_the_network_does_not_take(ort: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    onnx.save(model(), folder / "model/model.onnx")
    other = Preprocess(HEIGHT, WIDTH + 1, 40, "bilinear", PREPROCESS.mean, PREPROCESS.std)
    bundle = seal(folder, Artifact("onnxruntime", folder / "model/model.onnx", "fp32"), definition=other)
    done = ort.run(bundle.path)
    assert done.returncode == 3
    assert "preprocess.json" in done.stderr


@pytest.mark.parametrize("batch", [None, 2])
def test_openvino(openvino: Runner, tmp_path: Path, photos_of_all_sorts: list[Path], batch: int | None) -> None:
    ov = pytest.importorskip("openvino", reason="openvino (edgetl[openvino]) makes and runs these")
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    onnx.save(model(batch), tmp_path / "model.onnx")
    ov.save_model(ov.convert_model(tmp_path / "model.onnx"), folder / "model/model.xml", compress_to_fp16=False)
    bundle = seal(folder, Artifact("openvino", folder / "model/model.xml", "fp32", "CPU"))
    compare(openvino, bundle, photos_of_all_sorts)
    done = openvino.run("--self-test", bundle.path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("batch", [1, 3])
def test_litert(litert: Runner, tmp_path: Path, photos_of_all_sorts: list[Path], batch: int) -> None:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    (folder / "model/model.tflite").write_bytes(convert(model(batch)))
    bundle = seal(folder, Artifact("litert", folder / "model/model.tflite", "fp32"))
    compare(litert, bundle, photos_of_all_sorts)
    done = litert.run("--self-test", bundle.path)
    assert done.returncode == 0, done.stderr


def test_a_litert_that_nobody_tried(litert: Runner, tmp_path: Path) -> None:
    """Its functions may take other parameters under the same names, and then crash."""
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    (folder / "model/model.tflite").write_bytes(convert(model(1)))
    bundle = seal(folder, Artifact("litert", folder / "model/model.tflite", "fp32"))
    (tmp_path / "package").mkdir()
    library = Path(shutil.copy(litert.start[litert.start.index("--library") + 1], tmp_path / "package"))
    done = litert.run("--library", library, bundle.path)
    assert done.returncode == 6
    assert "2.3" in done.stderr
