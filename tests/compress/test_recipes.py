from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.base.errors import CompressionError, UnknownNameError
from edgetl.base.resources import resource
from edgetl.compress.recipes import load_recipe, recipe_for, recipe_names, serving, siblings, with_changes
from edgetl.core.targets import load_targets

STATIC = ["litert-int8", "openvino-dense-int8", "openvino-int8", "ort-aarch64-int8", "ort-x86-int8", "tensorrt-int8"]
DYNAMIC = ["ort-aarch64-transformer-int8", "ort-x86-transformer-int8"]
NAMES = sorted([*STATIC, *DYNAMIC])


def test_the_recipes_of_this_installation() -> None:
    assert recipe_names() == NAMES
    assert [load_recipe(name).name for name in NAMES] == NAMES


def test_every_target_names_the_recipe_of_its_runtime_and_isa() -> None:
    for target in load_targets().values():
        chosen = recipe_for(target.backend, target.isa, "int8")
        assert chosen is not None
        assert target.recipe("int8") == chosen.name
        assert recipe_for(target.backend, target.isa, "fp32") is None


def test_a_pair_without_a_recipe() -> None:
    with pytest.raises(CompressionError, match="no recipe quantizes convolutional models for openvino on sm87"):
        recipe_for("openvino", "sm87", "int8")


def test_what_each_runtime_needs() -> None:
    ort, arm, trt = (load_recipe(name) for name in ("ort-x86-int8", "ort-aarch64-int8", "tensorrt-int8"))
    assert (ort.activations, arm.activations) == ("uint8", "int8")
    assert not ort.activations_symmetric
    assert not arm.activations_symmetric
    assert ort.per_channel
    assert arm.per_channel
    assert [recipe.bias_correction for recipe in (ort, arm, trt)] == ["none"] * 3
    assert load_recipe("openvino-int8").bias_correction == "fast"
    assert (trt.activations, trt.activations_symmetric, trt.bias) == ("int8", True, "float32")


@pytest.mark.parametrize("kind", ["convolutional", "dense", "transformer"])
def test_every_target_has_one_recipe_or_none_for_each_kind_of_model(kind: str) -> None:
    for target in load_targets().values():
        own = siblings(load_recipe(target.recipe("int8") or ""))
        if kind == "transformer" and target.backend in ("litert", "tensorrt"):
            with pytest.raises(CompressionError, match=f"no recipe quantizes transformer models for {target.backend}"):
                serving(own, kind)
            continue
        (chosen,) = [recipe for recipe in own if kind in recipe.models]
        assert serving(own, kind) == chosen == recipe_for(target.backend, target.isa, "int8", kind)
        assert chosen.calibrates == (kind != "transformer" or target.backend == "openvino")


def test_what_calibrates_nothing_takes_no_samples(tmp_path: Path) -> None:
    text = (resource("calibration") / "recipes" / "ort-x86-transformer-int8.toml").read_text()
    file = tmp_path / "mine.toml"
    file.write_text(text + "size = 12\n")
    with pytest.raises(CompressionError, match=r"mine\.toml: key 'size' has no meaning for onnxruntime-dynamic"):
        load_recipe(file)
    file.write_text(text.replace('"transformer"', '"recurrent"'))
    with pytest.raises(CompressionError, match="key 'models' cannot be"):
        load_recipe(file)
    for changes in ({"size": 12}, {"estimator": "mse"}, {"bias_correction": "fast"}, {"equalize": True}):
        with pytest.raises(CompressionError, match="key"):
            with_changes(load_recipe("ort-x86-transformer-int8"), **changes)


def test_unknown_name_offers_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        load_recipe("tensorrt-int4")


def copy_with(tmp_path: Path, old: str, new: str) -> Path:
    text = (resource("calibration") / "recipes" / "ort-x86-int8.toml").read_text()
    assert old in text
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(old, new))
    return file


def test_a_recipe_of_ones_own_by_its_path(tmp_path: Path) -> None:
    recipe = load_recipe(copy_with(tmp_path, "size = 128", "size = 32"))
    assert (recipe.name, recipe.size) == ("mine", 32)
    assert recipe.digest != load_recipe("ort-x86-int8").digest


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("size = 128", "size = 128\nsiez = 3", r"mine\.toml: unknown key 'siez': did you mean size"),
        ("size = 128", "", r"mine\.toml: key 'size' is missing"),
        ("size = 128", 'size = "many"', r"mine\.toml: key 'size' is 'many'"),
        ("size = 128", "size = true", r"mine\.toml: key 'size' is True"),
        ("size = 128", "size = 0", r"mine\.toml: key 'size' cannot be 0"),
        ("size = 128", 'size = 128\nbias_correction = "slow"', r"mine\.toml: key 'bias_correction' is 'slow'"),
        ("size = 128", "size = 128\nequalize = 1", r"mine\.toml: key 'equalize' is 1: give bool"),
        ('estimator = "min-max"', 'estimator = "mean-min-max"', r"use one of min-max, percentile, mse, entropy"),
        ('estimator = "min-max"', 'estimator = "guess"', r"mine\.toml: key 'estimator' is 'guess'"),
        ('engine = "onnxruntime"', 'engine = "olive"', r"mine\.toml: key 'engine' is 'olive'"),
        ('isa = ["x86-64"]', 'isa = "x86-64"', r"mine\.toml: key 'isa'"),
        ("symmetric = false", "symmetric = true", r"mine\.toml: key 'activations_symmetric' cannot be True"),
        ("seed = 0", "seed = ", r"mine\.toml is not readable TOML"),
    ],
)
def test_a_malformed_recipe_names_file_and_key(old: str, new: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match=words):
        load_recipe(copy_with(tmp_path, old, new))


def test_changes_are_checked_like_files() -> None:
    recipe = load_recipe("ort-x86-int8")
    assert with_changes(recipe, size=8).size == 8
    with pytest.raises(CompressionError, match="selection"):
        with_changes(recipe, selection="best")
    with pytest.raises(CompressionError, match="bias"):
        with_changes(load_recipe("openvino-int8"), bias="int32")
    for changes in ({"estimator": "mse"}, {"bias_correction": "full"}, {"equalize": True}):
        for name in STATIC:
            if load_recipe(name).estimator == changes.get("estimator"):
                continue
            assert with_changes(load_recipe(name), **changes).digest != load_recipe(name).digest
    with pytest.raises(CompressionError, match="'entropy': use one of mean-min-max, min-max, percentile, mse"):
        with_changes(load_recipe("openvino-int8"), estimator="entropy")
