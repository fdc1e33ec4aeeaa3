"""The tables against a real TensorRT parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgetl.backends.tensorrt_verdict import Objection, compatibility, objections_to
from edgetl.base.extras import available
from tests.backends.networks import CASES, quantized, saved

pytestmark = pytest.mark.skipif(not available("tensorrt_rtx"), reason="tensorrt_rtx is not installed: no parser")
#: The table nearest to the parser in tensorrt_rtx 1.7.
NEAREST = "11.1"


def refused(objections: tuple[Objection, ...]) -> bool:
    return any(objection.certain for objection in objections)


def parsed(model: bytes) -> tuple[bool, list[str]]:
    """What tensorrt_rtx's parser makes of a model: whether it takes it, and its warnings."""
    import tensorrt_rtx

    told: list[str] = []

    class Quiet(tensorrt_rtx.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt_rtx.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            told.append(message)

    logger = Quiet()
    flag = 1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    builder = tensorrt_rtx.Builder(logger)
    built = builder.create_network(flag)
    return bool(tensorrt_rtx.OnnxParser(built, logger).parse(model)), told


@pytest.mark.parametrize("name", CASES)
def test_the_table_says_what_the_parser_says(name: str, tmp_path: Path) -> None:
    objections = compatibility(saved(CASES[name], tmp_path), NEAREST)
    taken, told = parsed(CASES[name].SerializeToString())
    assert refused(objections) == (not taken), (list(map(str, objections)), told[-2:])


def test_the_table_refuses_what_the_parser_reads_wrongly(tmp_path: Path) -> None:
    unsigned = quantized(np.uint8(0))
    objections = compatibility(saved(unsigned, tmp_path), NEAREST)
    taken, told = parsed(unsigned.SerializeToString())
    assert taken
    assert any("UINT8" in message for message in told)
    first = next(one for one in objections if one.certain)
    assert str(first).startswith("QuantizeLinear 'the QuantizeLinear': it makes UINT8")


#: Onnx's own test of an operator → why table and parser differ about it.
DIFFERENCES = {
    # Refused by the table alone.
    "test_quantizelinear": "read as int8 with a warning",
    "test_quantizelinear_axis": "read as int8 with a warning",
    "test_quantizelinear_blocked_asymmetric": "read as int8 with a warning",
    "test_equal_uint8": "the one comparison of uint8 that the parser takes",
    # Accepted by the table alone: restrictions that the document does not name.
    "test_matmul_1d_3d": "a vector times a stack of matrices",
    "test_bernoulli_expanded": "random numbers in a type that it lacks",
    "test_tensorscatter_circular": "a mode",
    "test_upsample_nearest": "scales that are an input",
}
#: Likewise, for all tests whose name begins so.
FAMILIES = {
    "test_attention_": "what may be combined with what",
    "test_resize_": "scales that are an input, or axes in another order",
    "test_scatter_elements_with_": "reductions that need a plugin, which tensorrt_rtx lacks",
    "test_basic_deform_conv_": "a plugin that tensorrt_rtx lacks",
    "test_deform_conv_": "a plugin that tensorrt_rtx lacks",
    "test_roialign_": "a plugin that tensorrt_rtx lacks",
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_onnx_s_own_tests_of_every_operator_are_judged_as_the_parser_does() -> None:
    from onnx.backend.test.case.node import collect_testcases

    counts = {"refused by both": 0, "taken by both": 0, "unknown": 0}
    differ = set()
    for case in collect_testcases(None):
        taken, _ = parsed(case.model.SerializeToString())
        objections = objections_to(case.model, NEAREST) if checks(case.model) else None
        if objections is None:
            continue
        if objections and not refused(objections):
            counts["unknown"] += 1
        elif refused(objections) == (not taken):
            counts["taken by both" if taken else "refused by both"] += 1
        else:
            differ.add(case.name)
    explained = {name for name in differ if name in DIFFERENCES or name.startswith(tuple(FAMILIES))}
    assert differ - explained == set()
    assert counts["refused by both"] > 600
    assert counts["taken by both"] > 600
    assert len(differ) < 50


def checks(model: Any) -> bool:
    """Whether onnx itself calls the model valid: a few of its tests are of versions in preparation."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return False
    return True
