"""A small bundle of a real int8 network, real JPEGs, a real sshd and a real emulated machine."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgetl.base.storage import write_json
from edgetl.core.bundle import (
    GOLDEN,
    LABELS,
    PREPROCESS_FILE,
    SPLITS_FILE,
    Artifact,
    Bundle,
    load_bundle,
    write_manifest,
)
from edgetl.core.data import Dataset
from edgetl.core.manifest import Manifest
from edgetl.core.targets import find_target
from edgetl.devices import add_device
from edgetl.devices.connection import disconnect
from edgetl.inputs.image import Preprocess
from edgetl.runtime import predict
from edgetl.runtime.releases import data_home
from tests.devices.real_sshd import Heard, Sshd, running_sshd
from tests.runtime.tiny import text_bundle

SIDE, CLASSES = 32, 4
#: What a bundle is called where it is deployed.
NAME = "camera"
HOST_TARGET = "arm64-generic" if platform.machine() == "aarch64" else "x86-generic"


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve JPEGs of several sizes, one with a space in its name."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(7)
    paths = []
    for index in range(12):
        coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((48 + index, 60 - index), Image.Resampling.BICUBIC)
        paths.append(folder / f"image {index}.jpg")
        picture.save(paths[-1], quality=90)
    return paths


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, jpegs: list[Path]) -> Bundle:
    """A two-layer network, quantized by ONNX Runtime to u8/s8 per channel, with its float twin."""
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    for name in ("model", "float"):
        (folder / name).mkdir(parents=True)
    artifacts = {
        "deployed": Artifact("onnxruntime", folder / "model/model.onnx", "int8"),
        "float": Artifact("onnxruntime", folder / "float/model.onnx", "fp32"),
    }
    preprocess = Preprocess(SIDE, SIDE, 36, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    images = preprocess.batch(jpegs)["image"]
    _write_network(artifacts["float"].path)
    _quantize(artifacts["float"].path, artifacts["deployed"].path, images)
    labels = [f"class {index}" for index in range(CLASSES)]
    write_json(folder / LABELS, labels)
    write_json(folder / PREPROCESS_FILE, preprocess.to_json())
    write_json(folder / SPLITS_FILE, Dataset(folder, tuple(labels), ()).to_json())
    with (folder / GOLDEN).open("wb") as stream:
        np.savez(stream, **{"in.image": images[:2], "out.logits": np.zeros((2, CLASSES), np.float32)})
    write_manifest(folder, Manifest(target=find_target("arm64-generic")), artifacts)
    logits = predict(load_bundle(folder), jpegs[:2], threads=1)["logits"]
    with (folder / GOLDEN).open("wb") as stream:
        np.savez(stream, **{"in.image": images[:2], "out.logits": logits})
    write_manifest(folder, Manifest(target=find_target("arm64-generic")), artifacts)
    return load_bundle(folder)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[Path]]:
    """A bundle that reads texts, and files of some."""
    pytest.importorskip("tokenizers", reason="tokenizers (edgetl[text]) cuts texts into tokens")
    files = [tmp_path_factory.mktemp("texts") / "one.txt"]
    files += [files[0].with_name(name) for name in ("two.txt", "three.txt")]
    for file, text in zip(files, ("a good film", "bad", "a very very bad film"), strict=True):
        file.write_text(text)
    return text_bundle(tmp_path_factory.mktemp("bundles") / "texts"), files


@pytest.fixture(scope="session")
def host_bundle(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same for a target that this machine executes."""
    return variant(bundle, tmp_path_factory.mktemp("bundles") / "host", target=HOST_TARGET)


def variant(bundle: Bundle, folder: Path, *, target: str = "", wrong: bool = False, ballast: int = 0) -> Bundle:
    """A copy of a bundle under another manifest.

    Args:
        bundle: the original.
        folder: to be made.
        target: for which it is said to be.
        wrong: its golden vectors do not fit its model.
        ballast: bytes of noise that it carries.
    """
    shutil.copytree(bundle.path, folder)
    if wrong:
        with np.load(folder / GOLDEN) as stored:
            golden = dict(stored)
        with (folder / GOLDEN).open("wb") as stream:
            np.savez(stream, **{**golden, "out.logits": golden["out.logits"][:, ::-1]})
    if ballast:
        (folder / "ballast.bin").write_bytes(np.random.default_rng(ballast).bytes(ballast))
    artifacts = {
        role: replace(bundle.artifact(role), path=folder / bundle.artifact(role).path.relative_to(bundle.path))
        for role in ("deployed", "float")
    }
    write_manifest(folder, Manifest(target=find_target(target or bundle.target), name=folder.name), artifacts)
    return load_bundle(folder)


def _write_network(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights = {
        "scale": np.full((1, 3, 1, 1), 2 / 255, np.float32),
        "shift": np.ones((1, 3, 1, 1), np.float32),
        "w1": rng.normal(0, 0.4, (16, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.15, (32, 16, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.5, (32, CLASSES)).astype(np.float32),
        "b3": rng.normal(0, 0.5, CLASSES).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["normal"]),
        helper.make_node("Conv", ["normal", "w1"], ["c1"], name="c1", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="c2", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def _quantize(source: Path, out: Path, images: npt.NDArray[np.uint8]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(images)

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            image = next(self._left, None)
            return None if image is None else {"image": image[None]}

    quantize_static(
        source,
        out,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm"],
    )


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real sshd on a free port, with keys made on the spot."""
    with running_sshd(tmp_path_factory.mktemp("sshd"), tmp_path_factory.mktemp("device-home")) as running:
        yield running
        disconnect()


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``$EDGETL_HOME``."""
    monkeypatch.setenv("EDGETL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(params=["local", "board"])
def there(request: pytest.FixtureRequest, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is deployed on the device that is named like this parameter; nothing is at first."""
    if request.param == "local":
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        return data_home() / NAME
    sshd: Sshd = request.getfixturevalue("sshd")
    disconnect()
    for name in (".cache", ".local"):
        shutil.rmtree(sshd.home / name, ignore_errors=True)
    add_device("board", sshd.url(sshd.client("good")))
    return sshd.home / ".local/share/edgetl" / NAME


#: What the device's own end does is the same everywhere, and quicker to see here.
here = pytest.mark.parametrize("there", ["local"], indirect=True)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["there"])


@pytest.fixture
def heard() -> Heard:
    """A progress callback and what it was told."""
    told: list[tuple[str, int, int, str]] = []

    def listen(task: str, done: int, total: int, detail: str = "") -> None:
        told.append((task, done, total, detail))

    return told, listen
