from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgetl.backends import BACKENDS
from edgetl.backends.tensorrt import shell_script
from edgetl.backends.tensorrt_check import build_for, offered
from edgetl.base.errors import BackendError
from edgetl.base.extras import available
from edgetl.base.storage import read_json, sha256_file
from edgetl.compress.quantize import quantize, to_float
from edgetl.compress.recipes import load_recipe, with_changes
from edgetl.core.targets import find_target
from edgetl.runtime import build_engine
from tests.backends.contract import BackendContract
from tests.backends.networks import pair_network, text_network
from tests.compress.images import pictures

needs_builder = pytest.mark.skipif(
    not available("tensorrt_rtx"), reason="tensorrt_rtx is not installed: nothing can be built without a GPU"
)


class TestTensorRtForTheJetson(BackendContract):
    name = "tensorrt"
    target_name = "jetson-orin-nano"
    recipe = "tensorrt-int8"
    simulated = True
    files = frozenset({"model.onnx", "build_engine.py", "build_engine.sh", "parse.json"})


@needs_builder
def test_the_jetson_recipe_is_parsed_and_built_for_a_stand_in(lite0_onnx: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 1, 224, 224, 3), dtype=np.uint8)
    images = [{"image": image} for image in noise]
    recipe, target = load_recipe("tensorrt-int8"), find_target("jetson")
    model = quantize(lite0_onnx, recipe, images, tmp_path / "good").path
    artifact = BACKENDS["tensorrt"].compile(model, target, tmp_path / "out")
    parse = read_json(tmp_path / "out" / "parse.json")
    assert parse["checked"]
    assert (parse["compute_capability"], parse["stand_in"]) == ("8.6", True)
    assert parse["module"] == "tensorrt_rtx"
    assert parse["engine_bytes"] > 1_000_000
    assert parse["warning_count"] == 0
    assert parse["model_sha256"] == sha256_file(artifact.path)

    biased = with_changes(recipe, bias="int32")
    refused = quantize(lite0_onnx, biased, images, tmp_path / "bad").path
    # No table is asked about TensorRT-RTX: its parser refuses the model itself.
    with pytest.raises(BackendError, match=r"parser refuses .*input has type Int32"):
        BACKENDS["tensorrt"].compile(refused, find_target("rtx"), tmp_path / "out")
    # The earlier, good outcome is untouched.
    assert sha256_file(artifact.path) == parse["model_sha256"]


@needs_builder
def test_unsigned_zero_points_are_refused_though_the_parser_only_warns(
    small_int8: Callable[[str], Path], tmp_path: Path
) -> None:
    model = onnx.load(small_int8("tensorrt-int8"))
    for tensor in list(model.graph.initializer):
        if tensor.name.endswith("_zero_point") and not tensor.dims:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((), np.uint8), tensor.name))
    onnx.save(model, tmp_path / "unsigned.onnx")
    with pytest.raises(BackendError, match="UINT8 zero_point"):
        BACKENDS["tensorrt"].compile(tmp_path / "unsigned.onnx", find_target("rtx"), tmp_path / "out")


@needs_builder
@pytest.mark.parametrize(("target", "capability"), [("jetson-thor", "12.0"), ("rtx", "8.6")])
def test_float16_is_built_as_a_strongly_typed_network(
    target: str, capability: str, small_onnx: Path, tmp_path: Path
) -> None:
    model = to_float(small_onnx, "tensorrt", "fp16", tmp_path).path
    artifact = BACKENDS["tensorrt"].compile(model, find_target(target), tmp_path / "out")
    assert artifact.precision == "fp16"
    parse = read_json(tmp_path / "out" / "parse.json")
    assert (parse["checked"], parse["compute_capability"], parse["stand_in"]) == (True, capability, target != "rtx")


@needs_builder
def test_the_builder_is_silent(small_onnx: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    BACKENDS["tensorrt"].compile(small_onnx, find_target("jetson"), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_running_needs_a_gpu(small_onnx: Path, tmp_path: Path) -> None:
    backend = BACKENDS["tensorrt"]
    if backend.probe().devices:
        pytest.skip("this machine has an NVIDIA GPU")
    artifact = backend.compile(small_onnx, find_target("jetson"), tmp_path)
    with pytest.raises(BackendError, match="no NVIDIA GPU"):
        backend.open(artifact)
    session = backend.open(artifact, simulated=True)
    assert session.run({"image": pictures(1)})["logits"].shape == (1, 7)
    session.close()


def run_script(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "build_engine.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", env={**os.environ, **environment}
    )


def test_the_devices_script_stands_alone(small_int8: Callable[[str], Path], tmp_path: Path) -> None:
    BACKENDS["tensorrt"].compile(small_int8("tensorrt-int8"), find_target("jetson"), tmp_path)
    done = run_script(tmp_path, PYTHONPATH="")
    if done.returncode == 0:
        engine = Path(json.loads(done.stdout)["engine"])
        assert engine.stat().st_size > 1000
        assert json.loads(run_script(tmp_path).stdout)["reused"]
    else:
        assert done.stdout == ""
        assert done.stderr.strip().splitlines()[-1].startswith(("no TensorRT here", "no CUDA driver here"))
    missing = run_script(tmp_path, "--model", str(tmp_path / "absent.onnx"))
    assert "copy the whole folder of the bundle" in missing.stderr


@needs_builder
def test_the_devices_script_builds_what_was_checked_here(small_int8: Callable[[str], Path], tmp_path: Path) -> None:
    import tensorrt_rtx

    model = small_int8("tensorrt-int8")
    # The stages of the script that need no GPU: a network parsed from the bundle's file, and the name of its engine.
    logger = tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR)
    network = tensorrt_rtx.Builder(logger).create_network(build_engine.network_flags(tensorrt_rtx))
    assert tensorrt_rtx.OnnxParser(network, logger).parse(model.read_bytes())
    found = build_engine.Identity("10.3.0", (8, 7), "NVIDIA Jetson Orin", "l4t36.4.3", 1, 0, "a" * 64)
    assert found.engine(Path()).name == "model-trt10.3.0-sm87-NVIDIA_Jetson_Orin-l4t36.4.3-b1-aaaaaaaaaaaaaaaa.engine"


@needs_builder
@pytest.mark.parametrize("network", [pair_network, text_network])
def test_networks_of_several_inputs_are_built(network: Callable[[Path], Path], tmp_path: Path) -> None:
    """Profiles for every open axis: TensorRT builds nothing that has one without."""
    BACKENDS["tensorrt"].compile(network(tmp_path / "model.onnx"), find_target("jetson"), tmp_path / "out")
    assert read_json(tmp_path / "out" / "parse.json")["checked"]
    script = (tmp_path / "out" / "build_engine.sh").read_text()
    if network is text_network:
        assert "\nmost='input_ids:BATCHx512,attention_mask:BATCHx512'\n" in script
    else:
        assert "\nleast='left:1x4,right:1x3'\n" in script


def test_a_name_of_an_input_is_no_shell_command(tmp_path: Path) -> None:
    model = onnx.load(pair_network(tmp_path / "model.onnx"))
    model.graph.input[0].name = model.graph.node[0].input[0] = "a'; touch broken; echo '\\1 $(touch broken)"
    (tmp_path / "build.sh").write_bytes(shell_script(model))
    subprocess.run(["sh", "build.sh", "--help"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "broken").exists()


def test_an_engines_name_changes_with_all_that_it_depends_on() -> None:
    base = build_engine.Identity("10.3.0", (8, 7), "Orin Nano", "l4t36.4.3", 1, 0, "a" * 64)
    changes = {"version": "10.7.0", "capability": (11, 0), "gpu": "AGX Orin", "release": "l4t36.5.0", "batch": 4}
    changes |= {"workspace_mb": 512, "model_sha256": "b" * 64}
    assert set(changes) == set(base._fields)
    changed = [base._replace(**{name: value}) for name, value in changes.items()]
    assert len({each.engine(Path("out")) for each in [base, *changed]}) == 8
    assert len({each.machine for each in [base, *changed]}) == 5, "kernel timings hold for every model and batch"


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n", "l4t36.4.3"),
        ("# R38 (release), REVISION: 2.0, GCID: 1\n", "l4t38.2.0"),
        ("something else", "l4t-unknown"),
    ],
)
def test_system_release_of_a_jetson(text: str, release: str, tmp_path: Path) -> None:
    (tmp_path / "nv_tegra_release").write_text(text)
    assert build_engine.system_release(str(tmp_path / "nv_tegra_release")) == release


def test_packages_that_differ_in_the_build_number_share_names() -> None:
    assert build_engine.checked_version("tensorrt", "10.3.0.26") == "10.3.0"
    assert build_engine.checked_version("tensorrt_rtx", "1.7.1.116") == "1.7.1"
    with pytest.raises(SystemExit, match=r"10 or newer is needed, this is 8\.6\.2: install JetPack 6\.1"):
        build_engine.checked_version("tensorrt", "8.6.2")


def test_half_an_engine_is_never_left(tmp_path: Path) -> None:
    build_engine.write_whole(tmp_path / "model.engine", b"whole")
    assert [file.name for file in tmp_path.iterdir()] == ["model.engine"]
    assert (tmp_path / "model.engine").read_bytes() == b"whole"


def test_an_engine_without_its_own_checksum_is_not_whole(tmp_path: Path) -> None:
    engine = tmp_path / "model.engine"
    assert not build_engine.is_whole(engine)
    build_engine.keep(engine, b"an engine")
    assert build_engine.is_whole(engine)
    engine.write_bytes(b"an engin")
    assert not build_engine.is_whole(engine)
    build_engine.keep(engine, b"another")
    assert build_engine.is_whole(engine)
    build_engine.checksum_file(engine).unlink()
    assert not build_engine.is_whole(engine)
    assert [file.name for file in tmp_path.iterdir()] == ["model.engine"]


@needs_builder
def test_three_precisions_are_built_for_two_gpus(
    small_onnx: Path, small_int8: Callable[[str], Path], tmp_path: Path
) -> None:
    models = {
        "fp32": small_onnx,
        "fp16": to_float(small_onnx, "tensorrt", "fp16", tmp_path).path,
        "int8": small_int8("tensorrt-int8"),
    }
    # TensorRT-RTX has no float32 GEMM for Turing.
    capabilities = [capability for capability in offered() if float(capability) >= 8]
    assert len(capabilities) >= 2
    for precision, model in models.items():
        for capability in (capabilities[0], capabilities[-1]):
            check = build_for(model, capability, "")
            assert check.checked, precision
            assert (check.compute_capability, check.stand_in) == (capability, False)
            assert check.engine_bytes > 1000
            assert check.warnings == ()
