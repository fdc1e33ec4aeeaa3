"""Backbones: names, weights, preprocessing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.transfer.backbones import EMBEDDED, find, list_backbones
from edgetl.transfer.classifier import PointwiseHead, head_of
from edgetl.transfer.definitions import preprocess_for
from edgetl.transfer.fitting import refusal
from edgetl.transfer.model import Deployable
from edgetl.transfer.weights import WeightsSource, build, locate, read_tensors, renamed

DATA = os.environ.get("EDGETL_TEST_DATA")
LITES = [name for name, row in EMBEDDED.items() if row.source == "timm"]


def test_listing_the_embedded_ones_imports_nothing_heavy() -> None:
    code = (
        "import sys; from edgetl.transfer.backbones import list_backbones; from edgetl.transfer.strategies import "
        "list_strategies; rows = [b.to_json() for b in list_backbones()] + list_strategies(); "
        "print(sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", LITES)
def test_embedded_table_agrees_with_timm(name: str) -> None:
    row = EMBEDDED[name]
    config = timm.models.get_pretrained_cfg(row.architecture)
    assert row.preprocess is not None
    model = build(name, 1000, weights="none")
    assert row.parameters == sum(p.numel() for p in model.parameters())
    assert config.input_size == (3, row.preprocess.height, row.preprocess.width)
    assert row.preprocess.resize == round(row.preprocess.height / config.crop_pct)
    assert (config.mean, config.std, config.interpolation) == (row.preprocess.mean, row.preprocess.std, "bicubic")


@pytest.mark.parametrize("name", LITES)
def test_every_packaged_tensor_finds_its_place(name: str) -> None:
    source = locate(find(name), None)
    assert source.file is not None
    theirs = [v for k, v in read_tensors(source.file).items() if not k.endswith("num_batches_tracked")]
    ours = [v for k, v in build(name, 1000).state_dict().items() if not k.endswith("num_batches_tracked")]
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    if name == "efficientnet_lite0":
        assert len(ours) == 247


def test_renaming_refuses_another_count_or_shape() -> None:
    ours = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(EdgetlError, match="1 tensors, the architecture 2"):
        renamed({"x": torch.zeros(2)}, ours, "file")
    with pytest.raises(EdgetlError, match=r"y has shape \[4\], b needs \[3\]"):
        renamed({"x": torch.zeros(2), "y": torch.zeros(4)}, ours, "file")


def test_local_weights_for_timm_and_torchvision(tmp_path: Path) -> None:
    pairs = (
        ("timm/test_resnet", timm.create_model("test_resnet", num_classes=7), "fc"),
        ("torchvision/mobilenet_v3_small", torchvision.models.mobilenet_v3_small(num_classes=7), "classifier.3"),
    )
    for index, (name, original, head) in enumerate(pairs):
        file = tmp_path / f"{index}.safetensors"
        safetensors.torch.save_file(original.state_dict(), file)
        same = build(name, 7, weights=file).state_dict()
        assert all(torch.equal(value, same[key]) for key, value in original.state_dict().items())
        torch.save({"state_dict": original.state_dict()}, tmp_path / f"{index}.pth")
        fewer = build(name, 3, weights=tmp_path / f"{index}.pth").state_dict()
        assert fewer[f"{head}.weight"].shape[0] == 3
        assert all(torch.equal(v, fewer[k]) for k, v in original.state_dict().items() if not k.startswith(head))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    state.pop("conv1.weight", None)
    state.pop(next(iter(state)))
    safetensors.torch.save_file(state, tmp_path / "partial.safetensors")
    with pytest.raises(EdgetlError, match="lacks"):
        build("timm/test_resnet", 7, weights=tmp_path / "partial.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(EdgetlError, match="cannot read the weights"):
        build("timm/test_resnet", 7, weights=tmp_path / "text.pth")
    with pytest.raises(EdgetlError, match="there is no weights file"):
        build("timm/test_resnet", 7, weights=tmp_path / "absent.pth")


def test_unknown_names_offer_near_ones() -> None:
    for given, near in (
        ("efficientnet_lit0", "efficientnet_lite0"),
        ("timm/resnet81", "timm/resnet18"),
        ("torchvision/resnet81", "torchvision/resnet18"),
    ):
        with pytest.raises(UnknownNameError) as caught:
            find(given)
        assert near in caught.value.near
        assert "edgetl backbones" in str(caught.value)


def test_no_network_says_how_to_give_local_weights() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise OSError('no network')\n"
        "socket.getaddrinfo = refuse\n"
        "from edgetl.transfer.weights import build\n"
        "from edgetl.base.errors import EdgetlError\n"
        "for name in ('timm/test_convnext', 'torchvision/resnet18'):\n"
        "    try: build(name, 3)\n"
        "    except EdgetlError as error: print(error)\n"
    )
    clean = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith(("HF_", "TORCH_"))}
    home = {"HF_HOME": os.devnull + "/none", "TORCH_HOME": os.devnull + "/none"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**clean, **home}
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("--weights FILE.safetensors" in line and "no network" in line for line in lines)


def test_image_size_keeps_the_share_of_the_crop() -> None:
    assert preprocess_for("efficientnet_lite0", 112).resize == 128
    assert preprocess_for("torchvision/resnet18").resize == 256
    assert preprocess_for("timm/test_efficientnet").mean == (0.485, 0.456, 0.406)
    with pytest.raises(EdgetlError, match="too small"):
        preprocess_for("efficientnet_lite0", 4)


def test_a_pattern_lists_both_libraries() -> None:
    names = [row.name for row in list_backbones("resnet18")]
    assert names == ["resnet18", "torchvision/resnet18"]
    assert [row.name for row in list_backbones()] == list(EMBEDDED)


@pytest.mark.skipif(DATA is None, reason="EDGETL_TEST_DATA is not set: needs imagenet-sample")
def test_lite0_accuracy_on_the_imagenet_sample() -> None:
    files = sorted((Path(str(DATA)) / "imagenet-sample").glob("*.jpg"))
    preprocess = preprocess_for("efficientnet_lite0")
    model = Deployable(build("efficientnet_lite0", 1000), preprocess).eval().to(memory_format=torch.channels_last)
    torch.set_num_threads(os.cpu_count() or 1)
    right = 0
    with torch.inference_mode():
        for first in range(0, len(files), 50):
            batch = torch.from_numpy(preprocess.batch(files[first : first + 50])["image"])
            right += int((model(batch).argmax(1) == torch.arange(first, first + len(batch))).sum())
    assert len(files) == 1000
    assert abs(right / 10 - 87.2) <= 0.2


def test_what_has_no_linear_head_is_not_listed() -> None:
    names = {row.name for row in list_backbones("*")}
    gone = {"deit_tiny_distilled_patch16_224", "levit_128s", "crossvit_tiny_240", "torchvision/squeezenet1_0"}
    assert not gone & names
    assert {"resnet18", "resnetv2_50x1_bit", "dla34", "torchvision/googlenet", "torchvision/vit_h_14"} <= names
    for name in sorted(gone):
        with pytest.raises(EdgetlError, match="is not one linear layer"):
            find(name)


@pytest.mark.parametrize(
    "name",
    ["dla46x_c", "dpn48b", "resnetv2_18", "torchvision/googlenet", "torchvision/inception_v3", "torchvision/vit_h_14"],
)
def test_what_is_listed_answers_with_one_number_a_class(name: str) -> None:
    """Heads that are 1x1 convolutions, that have others beside them, and sizes that a constructor must be told."""
    row = find(name)
    assert row.preprocess is not None
    assert refusal(row, WeightsSource("none"), row.preprocess) is None


def test_a_head_that_is_a_convolution_is_the_same_as_a_linear_layer() -> None:
    theirs = timm.create_model("dla46x_c", num_classes=5).eval()
    tensors = theirs.state_dict()
    ours = build("dla46x_c", 5, weights="none").eval()
    name, head = head_of(ours)
    assert isinstance(head, PointwiseHead)
    ours.load_state_dict({k: v.flatten(1) if k == f"{name}.weight" else v for k, v in tensors.items()})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))


def test_the_weights_of_such_a_head_are_kept_with_its_classes(tmp_path: Path) -> None:
    theirs = timm.create_model("dla46x_c", num_classes=5).state_dict()
    safetensors.torch.save_file(theirs, tmp_path / "w.safetensors")
    kept = head_of(build("dla46x_c", 5, weights=tmp_path / "w.safetensors"))[1]
    assert torch.equal(kept.weight, theirs["fc.weight"].flatten(1))
    assert head_of(build("dla46x_c", 3, weights=tmp_path / "w.safetensors"))[1].out_features == 3
