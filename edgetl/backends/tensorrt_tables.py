"""What each TensorRT takes, as dated tables: one TOML file for each version that was read, in ``targets/tensorrt``.

A table says for each ONNX operator which types the parser of that version documents, which operators it refuses, and
which further rules hold. What no source told is in no table, and the verdict on it is 'unknown'.
"""

from __future__ import annotations

import datetime
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import BackendError, EdgetlError, UnknownNameError
from edgetl.base.resources import resource

Version = tuple[int, int]

_JETPACK = "jetpack.toml"
_RULE_KEYS = {"operators", "check", "why", "remedy", "certain"}
_TABLE_KEYS = {"version", "date", "opset_min", "opset_max", "types", "casts", "unconfirmed"}
_TABLE_KEYS |= {"refused", "operators", "rules", "sources"}


@dataclass(frozen=True)
class Rule:
    """A restriction beyond operator and type.

    Attributes:
        check: name of the function in ``tensorrt_rules`` that looks for it.
        operators: whose nodes it looks at; empty: every node, or the whole model.
        why, remedy: for the reader.
        certain: False for what is documented but not enforced by every parser: breaking it raises a doubt.
        settings: arguments of the function.
    """

    check: str
    operators: frozenset[str]
    why: str
    remedy: str
    certain: bool
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """What was read, where and when."""

    title: str
    url: str
    read: datetime.date


@dataclass(frozen=True)
class Table:
    """What the ONNX parser of one TensorRT version takes.

    Attributes:
        version: major and minor.
        date: of that release.
        opset_min, opset_max: documented range of ONNX opsets.
        types: of tensors, in NVIDIA's spelling: FP32, FP16, BF16, INT8, …
        casts: types that the parser replaces by others, such as DOUBLE by FP32.
        operators: ONNX operator → documented types; none for one that is refused.
        rules: further restrictions.
    """

    version: Version
    date: datetime.date
    opset_min: int
    opset_max: int
    types: frozenset[str]
    casts: Mapping[str, str]
    operators: Mapping[str, frozenset[str]]
    rules: tuple[Rule, ...]
    sources: tuple[Source, ...]
    unconfirmed: tuple[str, ...]

    @property
    def name(self) -> str:
        """As in '10.3'."""
        return "{}.{}".format(*self.version)


@dataclass(frozen=True)
class Release:
    """A system release and the TensorRT that it brings; ``confirmed`` is False where no page of NVIDIA's was read."""

    system: str
    tensorrt: str
    source: str
    l4t: str = ""
    url: str = ""
    confirmed: bool = True


def parse_version(text: str) -> Version:
    """Major and minor number of '10.3', '10.3.0' or '11.1.0.18'.

    Raises:
        BackendError: it is no version.
    """
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        raise BackendError(f"'{text}' is no TensorRT version", f"give one such as {', '.join(_names())}")
    return int(parts[0]), int(parts[1])


def tables() -> dict[Version, Table]:
    """All tables, oldest first.

    Raises:
        EdgetlError: a file is malformed; the message names the file and what is wrong.
    """
    return dict(_load(resource("targets") / "tensorrt"))


def tables_around(version: Version) -> tuple[Table | None, Table | None]:
    """The newest table of the same major version that is not newer, and the oldest one that is not older.

    Twice the same table where that very version was read; the first is None where nothing so old was.
    """
    known = tables()
    below = [table for at, table in known.items() if at <= version and at[0] == version[0]]
    above = [table for at, table in known.items() if at >= version]
    return (below[-1] if below else None), (above[0] if above else None)


def jetpacks() -> tuple[Release, ...]:
    """Which TensorRT each JetPack brings, oldest first."""
    file = resource("targets") / "tensorrt" / _JETPACK
    return tuple(Release(**entry) for entry in _toml(file)["releases"])


def of_jetpack(name: str) -> str:
    """TensorRT's version in JetPack ``name``, such as '6.2'.

    Raises:
        UnknownNameError: that release is not in the table.
    """
    known = {release.system.removeprefix("JetPack "): release.tensorrt for release in jetpacks()}
    if name not in known:
        raise UnknownNameError("JetPack", name, known)
    return known[name]


def _names() -> list[str]:
    return [table.name for table in tables().values()]


@functools.lru_cache(maxsize=4)
def _load(folder: Path) -> dict[Version, Table]:
    files = [file for file in folder.glob("*.toml") if file.name != _JETPACK]
    read = [_table(file) for file in files]
    return {table.version: table for table in sorted(read, key=lambda table: table.version)}


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise EdgetlError(f"cannot read {file} ({problem})", "reinstall edgetl") from problem


def _table(file: Path) -> Table:
    raw = _toml(file)
    wrong = sorted(_TABLE_KEYS.symmetric_difference(raw))
    if wrong:
        raise EdgetlError(f"{file}: key '{wrong[0]}' is missing or unknown", f"a table has {', '.join(_TABLE_KEYS)}")
    version = parse_version(raw["version"])
    if file.stem != raw["version"]:
        raise EdgetlError(f"{file} is for version {raw['version']}", f"call it {raw['version']}.toml")
    types = frozenset(raw["types"].split())
    operators: dict[str, frozenset[str]] = {}
    for entry in [*raw["operators"], {"types": "", "names": raw["refused"]}]:
        foreign = set(entry["types"].split()) - types
        twice = operators.keys() & set(entry["names"].split())
        if foreign or twice:
            raise EdgetlError(f"{file}: {min(foreign or twice)} is an unknown type or named twice", "correct the table")
        operators |= dict.fromkeys(entry["names"].split(), frozenset(entry["types"].split()))
    return Table(
        version=version,
        operators=operators,
        types=types,
        rules=tuple(_rule(file, entry, operators) for entry in raw["rules"]),
        sources=tuple(Source(**entry) for entry in raw["sources"]),
        unconfirmed=tuple(raw["unconfirmed"]),
        **{key: raw[key] for key in ("date", "opset_min", "opset_max", "casts")},
    )


def _rule(file: Path, raw: dict[str, Any], operators: Mapping[str, frozenset[str]]) -> Rule:
    names = frozenset() if raw["operators"] == "*" else frozenset(raw["operators"].split())
    unknown = sorted(name for name in names if not operators.get(name))
    if unknown:
        raise EdgetlError(f"{file}: a rule is about {unknown[0]}, which is refused or unknown", "correct the table")
    settings = {key: value for key, value in raw.items() if key not in _RULE_KEYS}
    return Rule(raw["check"], names, raw["why"], raw.get("remedy", ""), raw.get("certain", True), settings)
