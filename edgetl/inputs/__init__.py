"""From a file to the network's input: one definition with four users (training, calibration, the graph, the device).

One file a kind, one line in :mod:`edgetl.inputs.kinds`. numpy, and Pillow or ``tokenizers``: no more on the device.
"""

from edgetl.inputs.ahead import read_ahead
from edgetl.inputs.base import Input, InputKind
from edgetl.inputs.datasets import load_dataset, what
from edgetl.inputs.image import Preprocess
from edgetl.inputs.kinds import (
    INPUTS,
    defined,
    find_input,
    input_of,
    kind_of,
    modules_for,
    preprocess_of,
    read_fields,
    read_input,
    write_input,
)
from edgetl.inputs.tensor import ArraySpec, Tensors
from edgetl.inputs.text import Text

__all__ = [
    "INPUTS",
    "ArraySpec",
    "Input",
    "InputKind",
    "Preprocess",
    "Tensors",
    "Text",
    "defined",
    "find_input",
    "input_of",
    "kind_of",
    "load_dataset",
    "modules_for",
    "preprocess_of",
    "read_ahead",
    "read_fields",
    "read_input",
    "what",
    "write_input",
]
