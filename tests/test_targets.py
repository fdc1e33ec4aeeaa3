"""Targets: the shipped ones are whole and sourced, user folders add and override, malformed ones end in one line."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import platform
import re
from pathlib import Path

import pytest

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.base.resources import resource
from edgetl.core.targets import ENVIRONMENT, Target, find_target, load_targets

REQUIRED = {
    "jetson-orin-nano",
    "jetson-agx-orin",
    "jetson-thor",
    "rtx",
    "intel-cpu",
    "intel-igpu",
    "intel-npu",
    "rpi4",
    "rpi5",
    "arm64-generic",
    "x86-generic",
    "arm64-litert",
    "x86-litert",
}

BOARD = """
name = "my-board"
title = "My board"
aliases = ["mine"]
family = "arm"
backend = "onnxruntime"
isa = "aarch64"
arch = "aarch64"
memory_mb = 2048
precisions = ["fp32", "int8"]
default_precision = "int8"
compile_on = "host"
cpu = { model = "Arm Cortex-A53", cores = 4 }

[recipes]
int8 = "ort-aarch64-int8"

[[sources]]
figures = ["precisions", "memory_mb", "cpu"]
title = "Data sheet"
url = "https://example.org/board"
"""


@pytest.fixture(autouse=True)
def _shipped_targets_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def shipped() -> list[Target]:
    return list(load_targets().values())


def add(folder: Path, name: str, text: str) -> Path:
    """Write folder/name/target.toml and return the folder."""
    (folder / name).mkdir(parents=True)
    (folder / name / "target.toml").write_text(text, encoding="utf-8")
    return folder


def test_every_required_target_is_shipped() -> None:
    targets = load_targets()
    assert set(targets) >= REQUIRED
    assert list(targets) == sorted(targets)
    assert all(name == target.name for name, target in targets.items())


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_every_figure_names_the_page_it_was_read_from(name: str) -> None:
    target = find_target(name)
    pages = target.to_json()["sources"]
    assert set(pages) == set(target.figures())
    for figure, sources in pages.items():
        assert sources, figure
        assert all(source["title"] and re.match(r"https://\S+$", source["url"]) for source in sources), figure


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_json_holds_every_field_and_survives_encoding(name: str) -> None:
    target = find_target(name)
    record = target.to_json()
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {field.name for field in dataclasses.fields(Target)}
    assert record["precisions"] == list(target.precisions)


def test_targets_are_values() -> None:
    target = find_target("rpi5")
    assert hash(target) == hash(dataclasses.replace(target))
    with pytest.raises(dataclasses.FrozenInstanceError):
        target.name = "other"  # type: ignore[misc]


def test_changing_the_returned_mapping_changes_no_later_call() -> None:
    load_targets().clear()
    assert "rpi4" in load_targets()


def test_alias_leads_to_the_target() -> None:
    assert find_target("jetson") is find_target("jetson-orin-nano")


@pytest.mark.parametrize(
    ("typo", "meant"), [("jetsn", "jetson"), ("intel_cpu", "intel-cpu"), ("rpi6", "rpi5"), ("x86", "x86-generic")]
)
def test_unknown_name_offers_the_near_ones(typo: str, meant: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_target(typo)
    assert meant in caught.value.near
    assert "edgetl targets" in str(caught.value)
    assert caught.value.exit_status == 2


def test_recipes_are_named_by_backend_and_isa() -> None:
    by_pair: dict[tuple[str, str], set[str | None]] = {}
    for target in shipped():
        pair = (target.backend, "cuda" if target.backend == "tensorrt" else target.isa)
        by_pair.setdefault(pair, set()).add(target.recipe("int8"))
    assert by_pair == {
        ("onnxruntime", "x86-64"): {"ort-x86-int8"},
        ("onnxruntime", "aarch64"): {"ort-aarch64-int8"},
        ("openvino", "x86-64"): {"openvino-int8"},
        ("openvino", "xe"): {"openvino-int8"},
        ("openvino", "npu"): {"openvino-int8"},
        ("tensorrt", "cuda"): {"tensorrt-int8"},
        ("litert", "x86-64"): {"litert-int8"},
        ("litert", "aarch64"): {"litert-int8"},
    }


def test_float_precisions_need_no_recipe_and_foreign_ones_are_refused() -> None:
    assert find_target("jetson").recipe("fp16") is None
    assert find_target("rpi5").recipe("fp32") is None
    with pytest.raises(EdgetlError, match=r"target rpi5 does not run fp16: choose one of fp32, int8"):
        find_target("rpi5").recipe("fp16")


def test_recipe_names_resolve_to_files() -> None:
    recipes = resource("calibration") / "recipes"
    if not any(recipes.glob("*.toml")):
        pytest.skip("calibration/recipes is empty in this checkout")
    wanted = {name for target in shipped() for name in target.recipes.values()}
    assert sorted(name for name in wanted if not (recipes / f"{name}.toml").is_file()) == []


@pytest.mark.parametrize(
    ("name", "machine", "where"),
    [
        ("intel-cpu", "x86_64", "host"),
        ("intel-cpu", "AMD64", "host"),
        ("intel-cpu", "aarch64", "simulated"),
        ("intel-igpu", "x86_64", "simulated"),
        ("intel-npu", "x86_64", "simulated"),
        ("x86-generic", "x86_64", "host"),
        ("x86-generic", "arm64", "simulated"),
        ("arm64-generic", "arm64", "host"),
        ("rpi4", "aarch64", "host"),
        ("rpi5", "x86_64", "simulated"),
        ("jetson", "aarch64", "simulated"),
        ("rtx", "x86_64", "simulated"),
    ],
)
def test_where_the_artifact_executes(name: str, machine: str, where: str) -> None:
    assert find_target(name).executes_on_host(machine) == where


def test_this_machine_is_the_default_host() -> None:
    for target in shipped():
        assert target.executes_on_host() == target.executes_on_host(platform.machine()), target.name


def test_engines_are_compiled_on_the_device_and_the_rest_on_the_host() -> None:
    for target in shipped():
        assert target.compile_on == ("device" if target.backend == "tensorrt" else "host"), target.name


def test_only_the_npu_takes_static_shapes_only() -> None:
    assert {target.name for target in shipped() if target.shapes == "static"} == {"intel-npu"}


def test_every_stand_in_is_offered_by_the_tensorrt_rtx_builder() -> None:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed: its builder's compute capabilities cannot be listed")
    import tensorrt_rtx

    offered = set(tensorrt_rtx.ComputeCapability.__members__)

    def sm(capability: str) -> str:
        return "SM" + capability.replace(".", "")

    for target in shipped():
        if target.backend == "tensorrt":
            assert sm(target.stand_in_compute_capability) in offered, target.name
            if sm(target.compute_capability) in offered:
                assert target.stand_in_compute_capability == target.compute_capability, target.name


def test_a_user_folder_adds_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(load_targets())
    monkeypatch.setenv(ENVIRONMENT, str(add(tmp_path, "my-board", BOARD)))
    board = find_target("mine")
    assert (board.name, board.memory_mb, board.recipe("int8")) == ("my-board", 2048, "ort-aarch64-int8")
    assert set(load_targets()) == {*before, "my-board"}
    monkeypatch.delenv(ENVIRONMENT)
    with pytest.raises(UnknownNameError):
        find_target("mine")


def test_user_folders_override_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, memory in (("one", "8192"), ("two", "16384")):
        add(tmp_path / folder, "rpi5", BOARD.replace('"my-board"', '"rpi5"').replace("2048", memory))
    monkeypatch.setenv(ENVIRONMENT, os.pathsep.join([str(tmp_path / "one"), "", str(tmp_path / "two")]))
    assert find_target("rpi5").memory_mb == 16384
    assert find_target("mine").name == "rpi5"
    assert find_target("rpi4").memory_mb == 4096


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("memory_mb = 2048", "memry_mb = 2048", "memry_mb", "did you mean memory_mb"),
        ("memory_mb = 2048", 'memory_mb = "2 GB"', "memory_mb", "must be a positive integer, not '2 GB'"),
        ("memory_mb = 2048", "memory_mb = 0", "memory_mb", "must be a positive integer"),
        ("memory_mb = 2048", "memory_mb = true", "memory_mb", "must be a positive integer"),
        ('title = "My board"', "", "title", "is missing"),
        ('title = "My board"', "title = 7", "title", "must be a string"),
        ('aliases = ["mine"]', 'aliases = "mine"', "aliases", "must be a list"),
        ('aliases = ["mine"]', "aliases = [3]", "aliases[0]", "must be a string"),
        ('aliases = ["mine"]', 'aliases = ["jetson"]', "aliases", "already means jetson-orin-nano"),
        ('aliases = ["mine"]', 'aliases = ["rpi4"]', "aliases", "already means rpi4"),
        ('family = "arm"', 'family = "risc"', "family", "use one of 'nvidia-jetson', 'nvidia-rtx'"),
        ('["fp32", "int8"]', '["fp32", "int9"]', "precisions[1]", "'int9'"),
        ('["fp32", "int8"]', '["fp32"]', "default_precision", "not among the precisions"),
        ('int8 = "ort', 'fp32 = "ort', "recipes.int8", "needs a calibration recipe"),
        ('int8 = "ort', 'fp16 = "none"\nint8 = "ort', "recipes.fp16", "not among the precisions"),
        ("cores = 4", 'cores = "four"', "cpu.cores", "must be a positive integer"),
        ("cores = 4", "coers = 4", "cpu.coers", "did you mean cpu.cores"),
        ('{ model = "Arm Cortex-A53", cores = 4 }', '"A53"', "cpu", "must be a table"),
        ('"memory_mb", "cpu"]', '"cpu"]', "sources", "the figure 'memory_mb' has no source"),
        ('"memory_mb", "cpu"]', '"memory_mb", "cpu", "tops"]', "sources", "'tops' is no figure"),
        ('url = "https://example.org/board"', "", "sources[0].url", "is missing"),
        ('name = "my-board"', 'name = "your-board"', "name", "differs from its folder"),
        ('backend = "onnxruntime"', 'backend = "openvino"', "runtime_device", "openvino needs it"),
        ('backend = "onnxruntime"', 'backend = "tensorrt"', "compute_capability", "tensorrt needs it"),
    ],
)
def test_a_malformed_target_ends_in_one_line_with_file_and_key(
    *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, key: str, says: str
) -> None:
    assert old in BOARD
    monkeypatch.setenv(ENVIRONMENT, str(add(tmp_path, "my-board", BOARD.replace(old, new, 1))))
    with pytest.raises(EdgetlError) as caught:
        load_targets()
    message = str(caught.value)
    assert str(tmp_path / "my-board" / "target.toml") in message
    assert f"'{key}'" in message
    assert says in message
    assert "\n" not in message


def test_a_gpu_whose_isa_and_capability_differ_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (resource("targets") / "jetson-thor" / "target.toml").read_text(encoding="utf-8")
    monkeypatch.setenv(ENVIRONMENT, str(add(tmp_path, "jetson-thor", text.replace('"sm110"', '"sm101"'))))
    with pytest.raises(EdgetlError, match=r"key 'isa': 'sm101' differs from compute capability 11\.0"):
        load_targets()


def test_text_that_is_not_toml_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(add(tmp_path, "my-board", "name = ")))
    with pytest.raises(EdgetlError, match=r"my-board/target\.toml is not valid TOML"):
        load_targets()


def test_a_folder_without_targets_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "absent"))
    with pytest.raises(EdgetlError, match=r"EDGETL_TARGETS names \S+absent, which holds no NAME/target\.toml"):
        load_targets()
    monkeypatch.setenv(ENVIRONMENT, str(add(tmp_path, "my-board", BOARD) / "my-board"))
    with pytest.raises(EdgetlError, match="name the folder above it"):
        load_targets()
