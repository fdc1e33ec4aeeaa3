"""A small network on seven classes of pictures, and its healthy bundles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from edgetl.core.bundle import Bundle
from edgetl.core.data import Dataset
from edgetl.inputs import load_dataset
from edgetl.inputs.image import Preprocess
from tests.compress.models import CLASSES, PREPROCESS, small_model
from tests.diagnosis.healthy import healthy_bundle

#: A crop ratio that is not 1, and a filter that is not the one that runners fall back on.
PREPARED = Preprocess(32, 32, 37, "bicubic", PREPROCESS.mean, PREPROCESS.std)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven classes of 40 pictures, larger than the network's input, coarse in the middle and with fine lines."""
    root = tmp_path_factory.mktemp("pictures")
    for label in range(CLASSES):
        folder = root / f"class-{label}"
        folder.mkdir()
        for index in range(40):
            draw = np.random.default_rng([label, index])
            coarse = draw.integers(0, 200, (5, 6, 3)).repeat(16, axis=0).repeat(16, axis=1)
            coarse[:: label + 2, :, label % 3] += 50
            Image.fromarray(coarse.astype(np.uint8)).save(folder / f"{index:02d}.png")
    shares = {"train": 0.1, "val": 0.1, "calibration": 0.45, "search": 0.1, "certify": 0.25}
    return load_dataset(root, shares=shares)


@pytest.fixture(scope="session")
def model() -> torch.nn.Module:
    """The network behind the bundles."""
    return small_model()


def livelier(network: torch.nn.Module) -> torch.nn.Module:
    """Activations of another size: what tells one model's ranges from another's."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data *= 0.4
    return network


@pytest.fixture(scope="session")
def bundles(
    pictures: Dataset, model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Bundle]:
    """The healthy bundle for a target, and that of another model of the same architecture."""
    made: dict[tuple[str, int], Bundle] = {}

    def bundle(target: str, seed: int = 0) -> Bundle:
        if (target, seed) not in made:
            folder = tmp_path_factory.mktemp("healthy") / target
            network = model if seed == 0 else livelier(small_model(seed))
            made[target, seed] = healthy_bundle(network, pictures, PREPARED, target, folder)
        return made[target, seed]

    return bundle
