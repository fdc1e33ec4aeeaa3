"""The options of a command as keys of a table, read from the command's own signature: there is no second list."""

from __future__ import annotations

import functools
import inspect
import operator
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.base.schema import Json, from_json, named

#: Of a command's parameters, those of the whole journey, and those that train anew each time, or several runs.
JOURNEYS = frozenset({"json", "quiet", "fresh", "repeat"})


@dataclass(frozen=True)
class Option:
    """One parameter of a command.

    Attributes:
        key: its name on the command line, without dashes.
        parameter: its name in Python.
        hint: its type.
        default: its value where the file has none; :data:`inspect.Parameter.empty` where it must have one.
        about: what ``--help`` says.
        pairs: whether it takes ``NAME=VALUE``, several times.
        least, most: of a number.
    """

    key: str
    parameter: str
    hint: Any
    default: Any
    about: str
    pairs: bool
    least: float | None
    most: float | None

    @property
    def required(self) -> bool:
        """Whether the command does not go without."""
        return self.default is inspect.Parameter.empty

    @property
    def many(self) -> bool:
        """Whether it may be given several times."""
        return _holds(self.hint, list)

    def takes(self, kind: type) -> bool:
        """Whether its values are of this type."""
        return _holds(self.hint, kind)


def options_of(command: Callable[..., Any], besides: Collection[str] = ()) -> dict[str, Option]:
    """What a command can be told in a file, by key.

    Args:
        command: the function behind it, annotated as typer takes it.
        besides: parameters that whoever runs it gives.
    """
    hints = get_type_hints(command, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in JOURNEYS and name not in besides:
            option = _option(name, hints[name], parameter.default)
            found[option.key] = option
    return found


def _option(name: str, hint: Any, default: Any) -> Option:
    info: OptionInfo | ArgumentInfo = OptionInfo(default=...)
    given = hint
    if get_origin(hint) is Annotated:
        given, *notes = get_args(hint)
        info = next((note for note in notes if isinstance(note, (OptionInfo, ArgumentInfo))), info)
    # In an annotation, what stands first is a name, and typer keeps it where a default stands otherwise.
    words = [str(word) for word in (info.default, *(info.param_decls or ())) if str(word).startswith("--")]
    key = words[0].split("/")[0].removeprefix("--") if words else name.replace("_", "-")
    if info.parser is not None:
        # What a file holds needs no parsing: it has the values themselves.
        given = get_type_hints(info.parser)["return"]
    pairs = info.metavar == "NAME=VALUE" and _holds(given, list)
    return Option(key, name, given, default, str(info.help or ""), pairs, info.min, info.max)


def read_options(
    options: Mapping[str, Option], table: Mapping[str, Json], where: str, given: Collection[str] = ()
) -> dict[str, Any]:
    """The arguments of a command, by parameter.

    Args:
        options: what it can be told.
        table: what the file says, by key; dashes and underscores are the same.
        where: file and table, for messages.
        given: keys that may be missing, because somebody else knows them.

    Raises:
        UnknownNameError: a key that is no option.
        EdgetlError: a value of another type, out of range, or one that is missing.
    """
    values = by_key(options, table, where)
    for key, option in options.items():
        if option.required and key not in values and key not in given:
            raise EdgetlError(f"{where}: {key} is missing", "add it")
        if option.pairs and isinstance(values.get(key), dict):
            values[key] = [f"{name}={_word(value, where, key)}" for name, value in values[key].items()]
    fields = [(f"f{i}", _in_file(options[key].hint), field(metadata=named(key))) for i, key in enumerate(values)]
    record: Any = from_json(make_dataclass("Table", fields), values, where, remedy="correct it")
    arguments = {}
    for i, key in enumerate(values):
        option, value = options[key], getattr(record, f"f{i}")
        _check_range(option, value, where)
        arguments[option.parameter] = _as_python(option.hint, value)
    return arguments


def spelled(key: str) -> str:
    """A key as the command line spells it: dashes and underscores are the same."""
    return key.replace("_", "-")


def by_key(options: Mapping[str, Option], table: Mapping[str, Json], where: str) -> dict[str, Json]:
    """The values of a table by their options' keys.

    Raises:
        UnknownNameError: a key that is no option; the near ones are offered.
        EdgetlError: one option in both spellings.
    """
    found: dict[str, Json] = {}
    for written, value in table.items():
        key = spelled(written)
        if key not in options:
            raise UnknownNameError(f"key in {where}:", written, options)
        if key in found:
            raise EdgetlError(f"{where}: {key} stands there twice, once as '{written}'", "remove one")
        found[key] = value
    return found


def _word(value: Json, where: str, key: str) -> str:
    if isinstance(value, (dict, list)):
        raise EdgetlError(f"{where}: {key} holds a table or a list, not words and numbers", "write NAME = VALUE there")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_range(option: Option, value: Any, where: str) -> None:
    if not isinstance(value, (int, float)):
        return
    if option.least is not None and value < option.least:
        raise EdgetlError(f"{where}: {option.key} is {value}", f"give at least {option.least:g}")
    if option.most is not None and value > option.most:
        raise EdgetlError(f"{where}: {option.key} is {value}", f"give at most {option.most:g}")


def _holds(hint: Any, kind: Any) -> bool:
    return hint is kind or get_origin(hint) is kind or any(_holds(part, kind) for part in get_args(hint))


def _in_file(hint: Any) -> Any:
    """An annotation of a command's parameter as what a file holds: paths are strings, a list may be its one entry."""
    if hint is Path:
        return str
    if get_origin(hint) is list:
        entry = _in_file(get_args(hint)[0])
        return entry | types.GenericAlias(tuple, (entry, ...))
    if get_origin(hint) in (Union, types.UnionType):
        # TOML has no null: what is not said stays the default.
        return functools.reduce(operator.or_, (_in_file(part) for part in get_args(hint) if part is not types.NoneType))
    return hint


def _as_python(hint: Any, value: Any) -> Any:
    if _holds(hint, list):
        entries = list(value) if isinstance(value, tuple) else [value]
        return [Path(entry) for entry in entries] if _holds(hint, Path) else entries
    return Path(value) if isinstance(value, str) and _holds(hint, Path) else value
