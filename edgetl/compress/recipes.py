"""Quantization recipes: one TOML file for a runtime, an ISA and kinds of model, in ``calibration/recipes``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgetl.base.errors import CompressionError, UnknownNameError
from edgetl.base.resources import resource
from edgetl.base.storage import parse_toml, sha256_json
from edgetl.compress.graph import KINDS

#: Who quantizes; the last one takes ranges while the model runs, and calibrates nothing.
DYNAMIC = "onnxruntime-dynamic"
ENGINES = ("onnxruntime", "nncf-openvino", DYNAMIC)
#: Keys without which nothing can be calibrated.
CALIBRATING = ("selection", "size", "seed", "estimator", "activations", "activations_symmetric", "bias")
SELECTIONS = ("random", "class-balanced", "k-centre")
#: What each engine can be told; NNCF takes some formats from the runtime's own table of kernels.
CHOICES: Mapping[str, Mapping[str, tuple[str | bool | int, ...]]] = {
    "onnxruntime": {
        "estimator": ("min-max", "percentile", "mse", "entropy"),
        "activations": ("uint8", "int8"),
        "weights": ("int8",),
        "bias": ("int32", "float32"),
        "bias_correction": ("none", "fast", "full"),
        "model_type": ("auto",),
    },
    "nncf-openvino": {
        "estimator": ("mean-min-max", "min-max", "percentile", "mse"),
        "activations": ("by-sign",),
        "weights": ("int8",),
        "per_channel": (True,),
        "bias": ("float32",),
        "bias_correction": ("none", "fast", "full"),
        "merge_activations": (False,),
        "model_type": ("auto", "none", "transformer"),
    },
    DYNAMIC: {
        "selection": ("",),
        "size": (0,),
        "estimator": ("",),
        "activations": ("",),
        "activations_symmetric": (False,),
        "weights": ("int8", "uint8"),
        "bias": ("",),
        "bias_correction": ("none",),
        "equalize": (False,),
        "merge_activations": (False,),
        "model_type": ("auto",),
    },
}


@dataclass(frozen=True)
class Recipe:
    """How a float ONNX model of some kind becomes an int8 one for a runtime on an ISA.

    Attributes:
        name: the file's stem.
        backend: the runtime that executes the result.
        isa: the instruction sets it was made for, as in ``target.toml``; ``"*"`` ends a family (``sm*``).
        engine: who quantizes, one of :data:`ENGINES`; the keys :data:`CALIBRATING` are given unless it is
            :data:`DYNAMIC`.
        weights: 8-bit type.
        per_channel: one weight scale for each output channel.
        models: the kinds of model it serves (:data:`edgetl.compress.graph.KINDS`).
        model_type: what NNCF is told of the model: ``transformer``, ``none``, or ``auto``, as the graph has it.
        selection, size, seed: which samples of the calibration split give the ranges, how many, and the draw.
        estimator: how a range comes from the observed values: ``min-max``, ``percentile``, ``mse``, ``entropy`` (see
            :func:`edgetl.compress.layers.ranges.estimate`), or ``mean-min-max`` (the mean of each sample's extremes).
            NNCF takes percentiles of each sample and averages them.
        percentile: share of values inside the range, in percent; used by ``percentile`` alone.
        activations: 8-bit type; ``by-sign`` is uint8 for what is never negative and int8 for the rest.
        activations_symmetric: no zero point other than 0.
        bias: ``int32`` behind a DequantizeLinear, or ``float32`` as it is.
        bias_correction: ``none``; ``fast``, each layer by itself; ``full``, each after those before it (see
            :mod:`edgetl.compress.bias`; NNCF has its own).
        equalize: scale channels alike across layers before quantization (see :mod:`edgetl.compress.equalize`).
        merge_activations: no quantization between an operator and the activation that follows it.
        exclude_operators, exclude_nodes: ONNX operator types and node names (``module/Operator``) left in float.
    """

    name: str
    backend: str
    isa: tuple[str, ...]
    engine: str
    weights: str
    per_channel: bool
    models: tuple[str, ...] = ("convolutional", "dense")
    model_type: str = "auto"
    selection: str = ""
    size: int = 0
    seed: int = 0
    estimator: str = ""
    activations: str = ""
    activations_symmetric: bool = False
    bias: str = ""
    percentile: float = 99.999
    bias_correction: str = "none"
    equalize: bool = False
    merge_activations: bool = False
    exclude_operators: tuple[str, ...] = ()
    exclude_nodes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def digest(self) -> str:
        """SHA-256 of the settings; equal for equal recipes."""
        return sha256_json(self.to_json())

    @property
    def calibrates(self) -> bool:
        """Whether it needs calibration samples."""
        return self.engine != DYNAMIC

    def serves(self, isa: str) -> bool:
        """Whether the recipe was made for this instruction set."""
        return any(isa == own or (own.endswith("*") and isa.startswith(own[:-1])) for own in self.isa)


def recipe_names() -> list[str]:
    """Names of the recipes of this installation, sorted."""
    return sorted(file.stem for file in _folder().glob("*.toml"))


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe of this installation by its name, or any by the path of its ``.toml`` file.

    Raises:
        UnknownNameError: there is no recipe of that name.
        CompressionError: the file is malformed; the message names the file and the key.
    """
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return _read(path)
    file = _folder() / f"{name}.toml"
    if str(name) not in recipe_names():
        raise UnknownNameError("recipe", str(name), recipe_names(), str(_folder()))
    return _read(file)


def recipe_for(backend: str, isa: str, precision: str, kind: str = KINDS[0]) -> Recipe | None:
    """The recipe of a runtime, an ISA and a kind of model; None for a float precision, which needs none.

    Raises:
        CompressionError: no recipe was made for them.
    """
    if precision != "int8":
        return None
    for recipe in map(load_recipe, recipe_names()):
        if recipe.backend == backend and recipe.serves(isa) and kind in recipe.models:
            return recipe
    raise CompressionError(
        f"no recipe quantizes {kind} models for {backend} on {isa}",
        f"add one to {_folder()}, or export with another --precision",
    )


def siblings(recipe: Recipe) -> tuple[Recipe, ...]:
    """The recipe, and those of the same runtime and ISA for other kinds of model."""
    others = (load_recipe(name) for name in recipe_names() if name != recipe.name)
    return (recipe, *(o for o in others if o.backend == recipe.backend and set(o.isa) & set(recipe.isa)))


def family(name: str | None, changes: Mapping[str, Any]) -> tuple[Recipe, ...]:
    """A recipe and its siblings, with some settings replaced in those that calibrate; none for None.

    Raises:
        UnknownNameError: there is no such recipe.
        CompressionError: a setting is impossible.
    """
    found = siblings(load_recipe(name)) if name else ()
    return tuple(with_changes(recipe, **changes) if recipe.calibrates else recipe for recipe in found)


def serving(recipes: Sequence[Recipe], kind: str) -> Recipe:
    """The first of some recipes (see :func:`siblings`) that serves a kind of model.

    Raises:
        CompressionError: none does.
    """
    for recipe in recipes:
        if kind in recipe.models:
            return recipe
    places = ", ".join(dict.fromkeys(isa for recipe in recipes for isa in recipe.isa))
    raise CompressionError(
        f"no recipe quantizes {kind} models for {recipes[0].backend} on {places}",
        "export with another --precision, or for another target",
    )


def with_changes(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with some settings replaced, checked like one that was read.

    Raises:
        CompressionError: a setting is impossible.
    """
    changed = replace(recipe, **changes)
    _check(changed, recipe.name)
    return changed


def _folder() -> Path:
    return resource("calibration") / "recipes"


def _read(file: Path) -> Recipe:
    try:
        table = parse_toml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CompressionError(f"{file} is not readable TOML ({error})", "correct it") from error
    kinds = {field.name: str(field.type) for field in fields(Recipe) if field.name != "name"}
    required = {field.name for field in fields(Recipe) if field.default is MISSING} - {"name"}
    for key, value in table.items():
        if key not in kinds:
            near = UnknownNameError("key", key, kinds)
            raise CompressionError(f"{file}: {near.what}", near.remedy)
        if not _is(kinds[key], value):
            raise CompressionError(f"{file}: key '{key}' is {value!r}", f"give {kinds[key]}")
    calibrates = table.get("engine") != DYNAMIC
    if given := [key for key in CALIBRATING if key in table and not calibrates]:
        raise CompressionError(f"{file}: key '{given[0]}' has no meaning for {DYNAMIC}", "remove it")
    if missing := sorted({*required, *(CALIBRATING if calibrates else ())} - set(table)):
        raise CompressionError(f"{file}: key '{missing[0]}' is missing", "add it")
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    recipe = Recipe(name=file.stem, **settings)
    _check(recipe, str(file))
    return recipe


def _is(kind: str, value: Any) -> bool:
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value).__name__ == kind


def _check(recipe: Recipe, where: str) -> None:
    choices: dict[str, tuple[Any, ...]] = {"engine": ENGINES, "selection": SELECTIONS}
    choices |= CHOICES.get(recipe.engine, {})
    for key, allowed in choices.items():
        if getattr(recipe, key) not in allowed:
            listed = ", ".join(map(str, allowed))
            raise CompressionError(f"{where}: key '{key}' is '{getattr(recipe, key)}'", f"use one of {listed}")
    wrong = {
        "models": not recipe.models or not set(recipe.models) <= set(KINDS),
        "size": recipe.calibrates and recipe.size < 1,
        "percentile": not 50 < recipe.percentile <= 100,
        "activations_symmetric": recipe.activations == "uint8" and recipe.activations_symmetric,
    }
    for key, bad in wrong.items():
        if bad:
            raise CompressionError(f"{where}: key '{key}' cannot be {getattr(recipe, key)!r} here", "correct it")
