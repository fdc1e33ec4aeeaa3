"""The deployed model: normalisation, pooling, and agreement of training and evaluation pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgetl.transfer.augment import transform_for, varied
from edgetl.transfer.definitions import preprocess_for
from edgetl.transfer.images import ImageStore
from edgetl.transfer.loader import batch_indices
from edgetl.transfer.model import Deployable, Normalise
from edgetl.transfer.weights import build


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm/test_efficientnet", "torchvision/resnet18"])
def test_normalisation_equals_plain_numpy(name: str) -> None:
    preprocess = preprocess_for(name, 32)
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = (image / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    module = Normalise(preprocess).train()
    for _ in range(2):
        (normalised,) = module(torch.from_numpy(image))
        found = normalised.numpy().transpose(0, 2, 3, 1)
        assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize(
    "name", ["timm/test_efficientnet", "timm/test_resnet", "timm/test_vit", "torchvision/resnet18"]
)
def test_deployable_equals_the_library_model(name: str) -> None:
    preprocess = preprocess_for(name, 64)
    torch.manual_seed(0)
    model = build(name, 5, weights="none", definition=preprocess).eval()
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    with torch.inference_mode():
        expected = model(((image / 255 - mean) / std).permute(0, 3, 1, 2))
        found = Deployable(model, preprocess).eval()(image)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


def test_stored_images_equal_the_preprocessing(few_digits: Path) -> None:
    preprocess = preprocess_for("timm/test_efficientnet", 32)
    files = sorted(few_digits.rglob("*.png"))[:4]
    kept, unkept = ImageStore(files, preprocess), ImageStore(files, preprocess, limit=0)
    assert kept.kept
    assert not unkept.kept
    for store in (kept, unkept):
        found = np.concatenate([batch["image"] for _, batch in store.batches(3)])
        assert np.array_equal(found, preprocess.batch(files)["image"])


def test_augmentation_is_a_function_of_seed_epoch_and_index() -> None:
    preprocess = preprocess_for("efficientnet_lite0", 32)
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    transform = transform_for(preprocess, mirror_safe=True)
    torch.manual_seed(1)
    first, state = varied(image, transform, 0, 1, 2), torch.get_rng_state()
    torch.rand(3)
    assert torch.equal(first, varied(image, transform, 0, 1, 2))
    assert not torch.equal(first, varied(image, transform, 0, 2, 2))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8


def test_unsafe_mirrors_never_happen() -> None:
    half = torch.zeros(3, 32, 32, dtype=torch.uint8)
    half[:, :, 16:] = 255
    transform = transform_for(preprocess_for("efficientnet_lite0", 32), mirror_safe=False)
    for index in range(40):
        columns = varied(half, transform, 0, 0, index).float().mean((0, 1))
        assert columns[-1] >= columns[0]


def test_batches_cover_each_image_once() -> None:
    batches = batch_indices(50, 16, seed=3, epoch=1)
    assert [len(b) for b in batches] == [16, 16, 16]
    assert len(set(np.concatenate(batches).tolist())) == 48
    assert not np.array_equal(batches[0], batch_indices(50, 16, seed=3, epoch=2)[0])
    assert [len(b) for b in batch_indices(5, 16, seed=0, epoch=0)] == [5]


def test_batches_of_texts_are_of_about_one_length_and_cover_each_once() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    batches = batch_indices(500, 16, seed=3, epoch=1, lengths=lengths)
    assert [len(b) for b in batches] == [16] * 31
    assert len(set(np.concatenate(batches).tolist())) == 496
    assert np.mean([np.ptp(lengths[b]) for b in batches]) < 8
    again = batch_indices(500, 16, seed=3, epoch=1, lengths=lengths)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    firsts = [int(lengths[b].mean()) for b in batches]
    assert firsts != sorted(firsts)
