"""What other tools make of a float ONNX file: ONNX Runtime's quantizer and NNCF, as their users call them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import numpy.typing as npt
import onnx
import openvino
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from edgetl.runtime.ov import core

Feeds = Sequence[Mapping[str, npt.NDArray[Any]]]
#: ONNX Runtime's settings for what asks for symmetric int8, TensorRT above all.
PER_CHANNEL: Mapping[str, Any] = {
    "per_channel": True,
    "activation_type": QuantType.QInt8,
    "extra_options": {"ActivationSymmetric": True},
}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Feeds) -> None:
        self.feeds: Iterator[Any] = iter(feeds)

    def get_next(self) -> Any:
        """The next sample."""
        return next(self.feeds, None)


def by_ort(model: Path, out: Path, feeds: Feeds, **options: Any) -> Path:
    """ONNX Runtime's ``quantize_static``, its defaults but for these options."""
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(model, out, _Reader(feeds), **options)
    return out


def by_nncf(model: Path, out: Path, feeds: Feeds) -> Path:
    """NNCF's ``quantize`` of what OpenVINO converts, saved as OpenVINO saves it."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    network = core().read_model(model)
    data = nncf.Dataset(list(feeds), lambda one: {name: np.asarray(array) for name, array in one.items()})
    openvino.save_model(nncf.quantize(network, data, subset_size=len(feeds)), out)
    return out


def edited(model: Path, out: Path, **changed: Any) -> Path:
    """A copy of an ONNX file in which functions have changed some of its constants, by the ends of their names."""
    loaded = onnx.load(str(model))
    done = set()
    for tensor in loaded.graph.initializer:
        for ending, change in changed.items():
            if tensor.name.endswith(ending):
                array = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
                done.add(ending)
    assert done == set(changed), [tensor.name for tensor in loaded.graph.initializer]
    onnx.save(loaded, out)
    return out
