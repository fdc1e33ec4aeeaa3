"""From a file to the network's input: one definition with four users (training, calibration, the graph, the device).

numpy and Pillow alone, also on the device.
"""

from __future__ import annotations

from edgetl.core.bundle import Bundle
from edgetl.core.run import Run
from edgetl.inputs.datasets import load_dataset
from edgetl.inputs.image import Preprocess

__all__ = ["Preprocess", "input_of", "load_dataset"]


def input_of(owner: Run | Bundle) -> Preprocess:
    """How a file becomes the input of a run's or a bundle's network.

    Raises:
        DataError: the definition is malformed.
    """
    return Preprocess.from_json(owner.input_record)
