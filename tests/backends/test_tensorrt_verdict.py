"""What the tables say of a model before the trip to the device."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edgetl.backends import BACKENDS
from edgetl.backends.tensorrt_verdict import Objection, compatibility
from edgetl.base.errors import BackendError
from edgetl.base.storage import read_json
from edgetl.compress.quantize import quantize, to_float
from edgetl.compress.recipes import load_recipe, with_changes
from edgetl.core.targets import find_target
from tests.backends.networks import CASES, FLOAT, UINT8, network, node, saved
from tests.compress.images import pictures


def refused(objections: tuple[Objection, ...]) -> bool:
    return any(objection.certain for objection in objections)


def test_edgetl_s_own_models_are_accepted_from_tensorrt_10_3_on(
    small_onnx: Path, small_int8: Callable[[str], Path], tmp_path: Path
) -> None:
    half = to_float(small_onnx, "tensorrt", "fp16", tmp_path).path
    for model in (small_onnx, small_int8("tensorrt-int8"), half):
        for version in ("10.3.0", "10.13.3", "10.16.2", "11.1"):
            assert compatibility(model, version) == ()


def test_tensorrt_8_6_would_silently_reduce_over_every_axis(tmp_path: Path) -> None:
    mean = network([node("ReduceMean", "x a")], constants={"a": np.array([2, 3])})
    certain, unknown = compatibility(saved(mean, tmp_path), "8.6.2")
    assert (certain.certain, certain.node, certain.tensorrt) == (True, "the ReduceMean", "8.6")
    assert "reduce over every axis" in certain.why
    assert certain.remedy == "export with opset 17 or older"
    assert (unknown.certain, unknown.what) == (False, "as opset 18 defines it")
    # The same mean as opset 17 writes it, axes in an attribute, is fine.
    older = network([node("ReduceMean", axes=[2, 3])], opset=17)
    assert compatibility(saved(older, tmp_path), "8.6") == ()


def test_each_objection_names_node_reason_and_remedy(tmp_path: Path) -> None:
    (found,) = compatibility(saved(CASES["int32 bias"], tmp_path), "10.3.0")
    assert (found.node, found.operator, found.certain) == ("bias", "DequantizeLinear", True)
    assert str(found) == "DequantizeLinear 'bias': it is given INT32: it takes FP8, INT4, INT8"
    assert "float biases" in found.remedy
    (found,) = compatibility(saved(CASES["uint8, transposed first"], tmp_path), "10.3")[:1]
    assert found.remedy == "make Cast the first node after a uint8 input"


def test_one_objection_for_many_nodes(tmp_path: Path) -> None:
    many = network([node("Hardmax", "x", "a"), node("Hardmax", "a", "b"), node("Hardmax", "b", "y")], opset=17)
    (found,) = compatibility(saved(many, tmp_path), "8.6")
    assert found.also == 2
    assert str(found).startswith("Hardmax 'the Hardmax' and 2 more")


def test_what_no_table_tells_is_unknown(tmp_path: Path) -> None:
    foreign = network([helper.make_node("Secret", ["x"], ["y"], name="s", domain="org.example")])
    foreign.opset_import.append(helper.make_opsetid("org.example", 1))
    (found,) = compatibility(saved(foreign, tmp_path), "10.3")
    assert not found.certain
    assert "a plugin may serve it" in found.why
    (found,) = compatibility(saved(network([node("Relu")]), tmp_path), "9.2")
    assert not found.certain
    assert "no table was read for TensorRT 9.2, only for 8.6, 10.3" in found.why


def test_a_version_between_two_tables_is_sure_only_of_what_both_say(tmp_path: Path) -> None:
    # 10.3 refuses windows and 10.15 takes them; both refuse bit shifts.
    window = network([node("HannWindow", "n"), node("Relu", "x", "r")], rank=1, constants={"n": np.int64(8)}, opset=17)
    for version, certain in (("10.3", [True]), ("10.13.3", [False]), ("10.15.1", [])):
        assert [one.certain for one in compatibility(saved(window, tmp_path), version)][:1] == certain
    assert refused(compatibility(saved(CASES["determinant"], tmp_path), "10.13.3"))
    # Nothing newer than 11.1 was read.
    assert not refused(compatibility(saved(CASES["determinant"], tmp_path), "11.4.1"))


def test_nodes_in_bodies_and_functions_are_judged(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("z", FLOAT, [2])
    body = helper.make_graph([helper.make_node("Det", ["x"], ["z"], name="inner")], "b", [], [value])
    other = helper.make_graph([helper.make_node("Det", ["x"], ["z"], name="second")], "b", [], [value])
    branch = network(
        [helper.make_node("If", ["c"], ["y"], name="if", then_branch=body, else_branch=other)],
        constants={"c": np.array(True)},
        shape=(2, 4, 4),
        rank=1,
    )
    (found,) = compatibility(saved(branch, tmp_path), "10.3")
    assert ({found.node} <= {"inner", "second"}, found.also) == (True, 1)
    opsets = [helper.make_opsetid("", 17)]
    local = helper.make_function("mine", "F", ["a"], ["b"], [helper.make_node("Det", ["a"], ["b"])], opsets)
    call = network([helper.make_node("F", ["x"], ["y"], name="call", domain="mine")], shape=(2, 4, 4), rank=1, opset=17)
    call.opset_import.append(helper.make_opsetid("mine", 1))
    call.functions.append(local)
    assert [one.operator for one in compatibility(saved(call, tmp_path), "10.3")] == ["Det"]
    assert [one.operator for one in compatibility(saved(call, tmp_path), "8.6")] == ["F", "Det"]


def test_compile_refuses_what_every_version_of_the_target_refuses(small_onnx: Path, tmp_path: Path) -> None:
    images = [{"image": image[None]} for image in pictures(8, seed=1)]
    biased = with_changes(load_recipe("tensorrt-int8"), bias="int32")
    model = quantize(small_onnx, biased, iter(images), tmp_path / "biased").path
    with pytest.raises(BackendError, match=r"TensorRT 10\.3\.0 \(JetPack 6\.2\) refuses .*DequantizeLinear .*INT32"):
        BACKENDS["tensorrt"].compile(model, find_target("jetson"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_one_version_takes_is_compiled_and_the_others_are_on_record(tmp_path: Path) -> None:
    target = find_target("jetson")
    relu = saved(network([node("Cast", "x", "c", to=FLOAT), node("Relu", "c", "y")], given=UINT8), tmp_path)
    BACKENDS["tensorrt"].compile(relu, target, tmp_path / "out")
    record = read_json(tmp_path / "out" / "parse.json")["devices"]
    assert [(one["tensorrt"], one["system"], one["verdict"]) for one in record] == [
        ("10.3.0", "JetPack 6.2", "accepted"),
        ("10.16.2", "JetPack 7.2", "accepted"),
    ]


def test_the_command_line(edgetl: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    model = saved(CASES["int32 bias"], tmp_path)
    done = edgetl("targets", "check", model, "--target", "jetson")
    assert done.returncode == 2
    assert "TensorRT 10.3.0 (JetPack 6.2): refused, by the table of 10.3" in done.stdout
    assert "refused: DequantizeLinear 'bias': it is given INT32" in done.stdout
    done = edgetl("targets", "check", saved(CASES["symmetric int8"], tmp_path), "--jetpack", "6.0", "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["versions"][0]["tensorrt"] == "8.6.2"
    assert answer["verdict"] in {"accepted", "unknown"}
    for arguments in (
        ["nope.onnx"],
        [model, "--target", "rpi5"],
        [model, "--tensorrt", "x"],
        [model, "--target", "rtx"],
    ):
        done = edgetl("targets", "check", *arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
