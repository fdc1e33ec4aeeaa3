from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgetl.base.errors import CompressionError
from edgetl.compress.export import export_onnx
from edgetl.compress.layers.attribution import attribute
from edgetl.compress.layers.emulation import Emulation
from edgetl.compress.layers.points import read_points
from edgetl.compress.layers.profiling import profile_layers
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe, with_changes
from edgetl.compress.sensitivity import Costs, Gain, choose, costs, gains
from edgetl.core.bundle import Artifact
from edgetl.runtime.sessions import open_session
from tests.compress.hostile import RESCALED, hostile_model
from tests.compress.images import pictures
from tests.compress.models import PREPROCESS, logits_of

SAMPLES = [{"image": image[None]} for image in pictures(12, seed=1)]
IMAGES = pictures(10, seed=4)
#: The rescaled tensor behind the last Add, and all that asks for its rounding.
GROUP = ("body.5.layers.6/Conv", "body.5/Add", "head/Gemm")


def simulated(path: Path, backend: str = "onnxruntime") -> npt.NDArray[np.float32]:
    session = open_session(Artifact(backend, path, "int8", "CPU"), simulated=True)
    return np.concatenate([session.run({"image": image[None]})["logits"] for image in IMAGES])


def made(exported: Path, recipe: str, out: Path, **changes: Any) -> Path:
    return quantize(exported, with_changes(load_recipe(recipe), **changes), SAMPLES, out).path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(hostile_model(), PREPROCESS, tmp_path_factory.mktemp("hostile") / "model.onnx")


@pytest.fixture(scope="module")
def broken(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(hostile, "ort-x86-int8", tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize("recipe", ["ort-x86-int8", "ort-aarch64-int8", "tensorrt-int8"])
def test_emulation_is_what_the_file_says(recipe: str, hostile: Path, tmp_path: Path) -> None:
    model = made(hostile, recipe, tmp_path)
    found = Emulation(hostile, model).outputs({"image": IMAGES})["logits"]
    expected = simulated(model)
    exact = logits_of(hostile, IMAGES)
    assert np.abs(expected - exact).mean() > 0.01
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected - exact).mean()


def test_emulation_of_an_ir_is_as_close_as_the_order_of_sums_allows(hostile: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    model = made(hostile, "openvino-int8", tmp_path)
    found, exact, expected = (
        Emulation(hostile, model).outputs({"image": IMAGES})["logits"],
        logits_of(hostile, IMAGES),
        simulated(model, "openvino"),
    )
    assert np.abs(found - expected).mean() < 0.35 * np.abs(expected - exact).mean()


def test_everything_in_float_is_the_float_model(hostile: Path, broken: Path) -> None:
    emulation = Emulation(hostile, broken)
    exact = logits_of(hostile, IMAGES)
    assert np.allclose(
        emulation.outputs({"image": IMAGES}, set(emulation.names))["logits"], exact, atol=1e-4 * np.ptp(exact)
    )


@pytest.mark.parametrize("excluded", [("body.4.layers.0/Conv",), GROUP, ("body.3/Add", "body.4.layers.0/Conv")])
def test_switches_foretell_what_a_recipe_with_excluded_nodes_makes(
    excluded: tuple[str, ...], hostile: Path, broken: Path, tmp_path: Path
) -> None:
    found = Emulation(hostile, broken).outputs({"image": IMAGES}, set(excluded))["logits"]
    expected = simulated(made(hostile, "ort-x86-int8", tmp_path, exclude_nodes=excluded))
    change = np.abs(simulated(broken) - expected).mean()
    assert change > 0
    assert np.abs(found - expected).mean() < 0.05 * change


def test_unknown_nodes_are_refused(hostile: Path, broken: Path) -> None:
    with pytest.raises(CompressionError, match="no node 'nowhere'"):
        Emulation(hostile, broken).outputs({"image": IMAGES}, {"nowhere"})


def test_the_rescaled_layers_are_worth_most(hostile: Path, broken: Path) -> None:
    points = read_points(broken, hostile)
    noises = attribute(hostile, points, [{"image": image[None]} for image in IMAGES[:4]])
    measured = gains(hostile, broken, points, noises, {"image": IMAGES}, most=8)
    assert len(measured) == 8
    best = max(measured, key=lambda gain: gain.removed)
    assert {name.rsplit("/", 1)[0] for name in best.nodes if not name.endswith("Add")} <= RESCALED
    assert best.removed > 0.2 * best.error
    emulation = Emulation(hostile, broken)
    exact = emulation.outputs({"image": IMAGES}, set(emulation.names))["logits"].astype(np.float64)
    errors = [
        ((emulation.outputs({"image": IMAGES}, nodes)["logits"] - exact) ** 2).mean()
        for nodes in (set(), set(best.nodes))
    ]
    assert best.error == pytest.approx(errors[0])
    assert best.removed == pytest.approx(errors[0] - errors[1])


def test_activation_noise_goes_with_all_that_asks_for_the_rounding(hostile: Path, broken: Path) -> None:
    points = {point.node: point for point in read_points(broken, hostile)}
    holding = Emulation(hostile, broken).holding("body.5.layers.0/Conv", points["body.5.layers.0/Conv"].source)
    assert holding == {"body.4.layers.6/Conv", "body.5.layers.0/Conv", "body.5/Add"}


def test_cheap_gains_come_first() -> None:
    def gain(node: str, removed: float) -> Gain:
        return Gain(node, "weights", (node,), removed, 1.0)

    measured = [gain("dear", 0.9), gain("cheap", 0.5), gain("harmful", -0.1), gain("free", 0.1)]
    cost = Costs("ms", {"dear": 10.0, "cheap": 1.0, "harmful": 0.1, "free": -2.0})
    assert [one.node for one in choose(measured, cost)] == ["free", "cheap", "dear"]
    assert cost.of(("dear", "cheap", "unknown")) == 11.0


def test_without_times_costs_are_shares_of_work(hostile: Path, broken: Path) -> None:
    points = read_points(broken, hostile)
    cost = costs(points, {}, {})
    assert cost.unit == "share of MACs"
    assert sum(cost.by_node.values()) == pytest.approx(1)
    assert cost.by_node["head/Gemm"] == pytest.approx(24 * 7 / sum(point.macs for point in points))


def test_times_of_every_layer_in_both_precisions(hostile: Path, broken: Path) -> None:
    points = read_points(broken, hostile)
    times = [profile_layers(path, hostile, {"image": IMAGES[:1]}, rounds=3) for path in (broken, hostile)]
    for one in times:
        assert {point.node for point in points} <= set(one)
        assert all(value >= 0 for value in one.values())
    cost = costs(points, *times)
    assert cost.unit == "ms"
    node = points[3].node
    assert cost.by_node[node] == pytest.approx(times[1][node] - times[0][node])


def test_times_in_openvino(hostile: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    model = made(hostile, "openvino-int8", tmp_path)
    points = {point.node for point in read_points(model, hostile)}
    for path in (model, hostile):
        assert points <= set(profile_layers(path, hostile, {"image": IMAGES[:1]}, engine="openvino", rounds=3))
