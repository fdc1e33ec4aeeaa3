"""What an artifact is made for: one ``target.toml`` in one folder for each target.

A target is data. A new board is one folder ``NAME/target.toml`` in ``targets/``, or in a folder named in the
environment variable ``EDGETL_TARGETS`` (several are separated by ``os.pathsep``); a name that exists already is
overridden there. Every hardware figure in the file names the page it was read from.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.base.resources import resource
from edgetl.base.storage import parse_toml
from edgetl.core.target import Target

__all__ = ["ENVIRONMENT", "Target", "find_target", "load_targets"]

#: variable that names further folders of targets
ENVIRONMENT = "EDGETL_TARGETS"

_T = TypeVar("_T")


def load_targets() -> dict[str, Target]:
    """All targets by name, sorted; the folders of ``EDGETL_TARGETS`` go over this installation's, the last one wins.

    Raises:
        EdgetlError: a ``target.toml`` is malformed; the message names the file and the key.
    """
    extra = os.environ.get(ENVIRONMENT, "").split(os.pathsep)
    return dict(_load(tuple(Path(part).expanduser().absolute() for part in extra if part)))


def find_target(name: str) -> Target:
    """The target with this name or alias.

    Raises:
        UnknownNameError: there is none; the near names are offered.
    """
    targets = load_targets()
    by_alias = {alias: target for target in targets.values() for alias in target.aliases}
    found = targets.get(name) or by_alias.get(name)
    if found is None:
        raise UnknownNameError("target", name, [*targets, *by_alias], listing="edgetl targets")
    return found


@functools.lru_cache(maxsize=8)
def _load(extra: tuple[Path, ...]) -> dict[str, Target]:
    files = {file.parent.name: file for file in sorted(resource("targets").glob("*/target.toml"))}
    for folder in extra:
        own = sorted(folder.glob("*/target.toml"))
        if not own:
            raise EdgetlError(
                f"{ENVIRONMENT} names {folder}, which holds no NAME/target.toml",
                "name the folder above it" if (folder / "target.toml").is_file() else "correct the variable",
            )
        files |= {file.parent.name: file for file in own}
    targets = {name: _read(files[name]) for name in sorted(files)}
    taken = {name: name for name in targets}
    for target in targets.values():
        for alias in target.aliases:
            owner = taken.setdefault(alias, target.name)
            if owner != target.name or alias in targets:
                raise EdgetlError(
                    f"{files[target.name]}: key 'aliases': '{alias}' already means {owner}", "choose another alias"
                )
    return targets


def _read(file: Path) -> Target:
    try:
        table = parse_toml(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise EdgetlError(f"cannot read {file} ({problem.strerror or problem})") from problem
    except ValueError as problem:
        raise EdgetlError(f"{file} is not valid TOML ({problem})") from problem
    target = _decode(Target, table, file, "")
    for key, wrong in _contradictions(target, file.parent.name):
        raise EdgetlError(f"{file}: key '{key}': {wrong}")
    return target


def _decode(cls: type[_T], table: dict[str, Any], file: Path, prefix: str) -> _T:
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in hints:
            raise UnknownNameError(f"key in {file}", prefix + key, [prefix + known for known in hints])
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if not optional and field.name not in table:
            raise EdgetlError(f"{file}: key '{prefix}{field.name}' is missing", "add it")
    return cls(**{key: _value(hints[key], table[key], file, prefix + key) for key in table})


def _value(hint: Any, value: Any, file: Path, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return _value(arguments[0], value, file, key)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, file, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {
            _value(arguments[0], k, file, key): _value(arguments[1], v, file, f"{key}.{k}") for k, v in value.items()
        }
    if origin is Literal:
        if value in arguments:
            return value
        allowed = ", ".join(repr(choice) for choice in arguments)
        raise EdgetlError(f"{file}: key '{key}' is {value!r}", f"use one of {allowed}")
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _decode(typing.cast("type[Any]", hint), value, file, f"{key}.")
    positive = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if (hint is str and isinstance(value, str)) or (hint is int and positive):
        return value
    wanted = {str: "a string", int: "a positive integer"}.get(hint, "a list" if origin is tuple else "a table")
    raise EdgetlError(f"{file}: key '{key}' must be {wanted}, not {value!r}")


def _contradictions(target: Target, folder: str) -> typing.Iterator[tuple[str, str]]:
    cuda = target.backend == "tensorrt"
    figures, sourced = target.figures(), {figure for source in target.sources for figure in source.figures}
    if target.name != folder:
        yield "name", f"'{target.name}' differs from its folder, '{folder}'"
    if target.default_precision not in target.precisions:
        yield "default_precision", f"{target.default_precision} is not among the precisions"
    if "int8" in target.precisions and "int8" not in target.recipes:
        yield "recipes.int8", "int8 needs a calibration recipe"
    for precision in target.recipes:
        if precision not in target.precisions:
            yield f"recipes.{precision}", f"{precision} is not among the precisions"
    if (target.backend == "openvino") != bool(target.runtime_device):
        yield "runtime_device", "the backend openvino needs it and no other backend takes it"
    for key in ("compute_capability", "stand_in_compute_capability"):
        value = getattr(target, key)
        if cuda != bool(value) or (value and not re.fullmatch(r"\d+\.\d", value)):
            yield key, f"'{value}': the backend tensorrt needs it as '8.7' and no other backend takes it"
    if cuda and target.isa != "sm" + target.compute_capability.replace(".", ""):
        yield "isa", f"'{target.isa}' differs from compute capability {target.compute_capability}"
    for figure in figures:
        if figure not in sourced:
            yield "sources", f"the figure '{figure}' has no source"
    for figure in sorted(sourced.difference(figures)):
        yield "sources", f"'{figure}' is no figure of this target"
