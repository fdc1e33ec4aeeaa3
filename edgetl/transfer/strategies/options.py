"""A recipe function's keyword parameters are its strategy's options: their types, defaults and words are read from it.

``def lora(rank: int = 8) -> Strategy`` is ``--strategy lora --set rank=16``.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgetl.base.errors import EdgetlError, UnknownNameError

Recipe = Callable[..., Any]
#: How a value of each type is asked for.
_WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Option:
    """One of them.

    Attributes:
        name: as given in ``--set name=value``.
        type: int, float, bool or str.
        default: its value unless given.
        about: one line.
    """

    name: str
    type: str
    default: int | float | bool | str
    about: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def options_of(recipe: Recipe) -> tuple[Option, ...]:
    """The options of a strategy, from the signature and the docstring (its ``Args:``) of its recipe function."""
    types, told = typing.get_type_hints(recipe), _told(inspect.getdoc(recipe) or "")
    return tuple(
        Option(name, types[name].__name__, parameter.default, told.get(name, ""))
        for name, parameter in inspect.signature(recipe).parameters.items()
    )


def about(recipe: Recipe) -> str:
    """What the strategy does: the first paragraph of its recipe's docstring, as one line."""
    return " ".join((inspect.getdoc(recipe) or "").split("\n\n", maxsplit=1)[0].split())


def reference(recipe: Recipe) -> str:
    """Where it comes from: the docstring's second paragraph, as one line; "" without one."""
    _, *others = (inspect.getdoc(recipe) or "").split("\n\n")
    return " ".join(others[0].split()) if others and not others[0].startswith("Args:") else ""


def chosen(strategy: str, recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every option: what was given, converted, or the default.

    Args:
        strategy: its name, for messages.
        recipe: its function.
        given: words as from a command line, or values of the option's type.

    Raises:
        UnknownNameError: no such option; offers the near names.
        EdgetlError: a value of another type.
    """
    options = {option.name: option for option in options_of(recipe)}
    for name in given:
        if not options:
            raise EdgetlError(f"the strategy '{strategy}' has no options, and {name} was given", "leave --set out")
        if name not in options:
            raise UnknownNameError(f"option of the strategy {strategy}", name, options, f"edgetl strategies {strategy}")
    types = typing.get_type_hints(recipe)
    return {
        name: _converted(name, types[name], given[name]) if name in given else option.default
        for name, option in options.items()
    }


def _converted(name: str, kind: type, value: Any) -> Any:
    wrong = EdgetlError(f"the option {name} is '{value}'", f"give {_WANTED[kind]}: --set {name}=…")
    if kind in (bool, str):
        if isinstance(value, kind):
            return value
        if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
            return f"{value:g}"
        if kind is str or str(value).lower() not in _TRUTH:
            raise wrong
        return _TRUTH[str(value).lower()]
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if isinstance(value, bool) or not math.isfinite(number) or (isinstance(value, float) and number != value):
        raise wrong
    return number


def _told(text: str) -> dict[str, str]:
    """What the section ``Args:`` of a docstring says of each parameter."""
    section = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1], re.MULTILINE) if section else []
    return {name: " ".join(words.split()) for name, words in entries}


def check(name: str, value: float | str, fine: bool, wanted: str) -> None:
    """Refuse an option's value that its strategy cannot use.

    Raises:
        EdgetlError: ``fine`` is false.
    """
    if not fine:
        raise EdgetlError(f"the option {name} is {value}", f"give {wanted}: --set {name}=…")
