"""A journey as its file tells it: which commands, on what, in which order; nothing is done yet."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.base.schema import Json
from edgetl.base.storage import parse_toml
from edgetl.cli import adopt, bench, export, finetune, report, verify
from edgetl.cli.journey.options import Option, options_of, read_options, spelled

Table: TypeAlias = Mapping[str, Json]
#: Bytes that a journey may have.
MOST_BYTES = 256 << 10
#: Each table is a command; what the journey itself knows is named: what the stage before it made.
COMMANDS: Mapping[str, Callable[..., Any]] = {
    "finetune": finetune.command,
    "adopt": adopt.command,
    "export": export.command,
    "verify": verify.command,
    "bench": bench.command,
    "report": report.command,
}
_KNOWN: Mapping[str, frozenset[str]] = {
    "export": frozenset({"run"}),
    "verify": frozenset({"bundle"}),
    "bench": frozenset({"bundle"}),
    "report": frozenset({"sources"}),
}
#: Where each stage's outcome goes below the journey's folder, unless its table says.
_OUT = {"finetune": "run", "adopt": "run", "export": "bundles", "report": "report.html"}
_BEGINNINGS = ("finetune", "adopt")


@dataclass(frozen=True)
class Stage:
    """One command of a journey.

    Attributes:
        name: of the command, which is the name of its table.
        title: the same, with the targets it is for.
        arguments: of the command's function, by parameter.
        works_on: the run for an export, the bundle for verify and bench, all of them for a report.
        bundles: what an export makes.
    """

    name: str
    title: str
    arguments: Mapping[str, Any]
    works_on: tuple[Path, ...] = ()
    bundles: tuple[Path, ...] = ()

    @property
    def page(self) -> Path | None:
        """What a report writes."""
        return Path(self.arguments["out"]) if self.name == "report" else None


@dataclass(frozen=True)
class Journey:
    """What a file asks for.

    Attributes:
        file: it.
        out: the folder of everything, as the file says.
        run: the folder of the run, likewise.
        stages: in order.
    """

    file: Path
    out: Path
    run: Path
    stages: tuple[Stage, ...]


def keys_of(table: str) -> dict[str, Option]:
    """What the table of a command can say."""
    return options_of(COMMANDS[table], _KNOWN.get(table, frozenset()))


def read_journey(file: Path) -> Journey:
    """Read a journey; whatever is wrong with it alone is found here.

    Raises:
        EdgetlError: unreadable, too large, no TOML, or a value that no option takes; the message names the key.
        UnknownNameError: a table, key or target that is none; the near ones are offered.
    """
    content = _read(file)
    try:
        top = parse_toml(content)
    except ValueError as error:
        raise EdgetlError(f"{file} is not valid TOML ({error})", "correct it") from error
    for key in top:
        if key != "out" and key not in COMMANDS:
            raise UnknownNameError(f"key in {file}:", key, ["out", *COMMANDS])
    tables = {name: _table(file, name, value) for name, value in top.items() if name != "out"}
    begun = [name for name in _BEGINNINGS if name in tables]
    if len(begun) != 1:
        both = "both [finetune] and [adopt]" if begun else "neither [finetune] nor [adopt]"
        raise EdgetlError(f"{file} has {both}", "a journey begins with one of them")
    out = top.get("out")
    if not isinstance(out, str) or not out:
        what = "is missing" if out is None else "is no folder's name"
        raise EdgetlError(f"{file}: out {what}", "say above the tables where all of it goes: out = 'FOLDER'")
    stages = tuple(_stages(file, Path(out), begun[0], tables))
    return Journey(file, Path(out), Path(stages[0].arguments["out"]), stages)


def _read(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise EdgetlError(f"{file} is no file", "name a TOML file, as edgetl run --print RUN writes one")
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise EdgetlError(f"cannot read {file} ({error.strerror or error})", "name a TOML file") from error
    if len(content) > MOST_BYTES:
        raise EdgetlError(f"{file} is larger than {MOST_BYTES >> 10} KiB", "no journey is: name another file")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise EdgetlError(f"{file} is not UTF-8 ({error.reason})", "save it as UTF-8") from error


def _table(file: Path, name: str, value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise EdgetlError(f"{file}: {name} is no table", f"write [{name}]")
    return value


def _stages(file: Path, out: Path, begins: str, tables: Mapping[str, dict[str, Json]]) -> Iterator[Stage]:
    first = _arguments(file, begins, tables[begins], out)
    run = Path(first["out"])
    yield Stage(begins, begins, first)
    bundles: dict[str, Path] = {}
    if "export" in tables:
        for targets, arguments in _exports(file, tables["export"], out):
            made = {target: Path(arguments["out"]) / target for target in targets}
            bundles |= made
            title = f"export {', '.join(targets)}"
            yield Stage("export", title, {**arguments, "run": run}, (run,), tuple(made.values()))
    for name in ("verify", "bench"):
        if name in tables:
            yield from _of_bundles(file, name, tables[name], bundles)
    if "report" in tables:
        sources = [run, *bundles.values()]
        arguments = {**_arguments(file, "report", tables["report"], out), "sources": sources}
        yield Stage("report", "report", arguments, tuple(sources))


def _arguments(file: Path, name: str, table: Table, out: Path | None = None) -> dict[str, Any]:
    arguments = read_options(keys_of(name), table, f"{file} [{name}]", () if out is None else ("out",))
    if out is not None:
        arguments.setdefault("out", out / _OUT[name])
    return arguments


def _by_target(file: Path, name: str, table: Table) -> tuple[Table, dict[str, Table]]:
    """What a table says of all targets, and what the tables in it say of one each."""
    options = keys_of(name)
    own: dict[str, Table] = {
        key: value for key, value in table.items() if isinstance(value, dict) and spelled(key) not in options
    }
    for target, inner in own.items():
        # Which targets there are is said once, and where their bundles go, too.
        if set(inner) & {"target", "out"}:
            raise EdgetlError(f"{file} [{name}.{target}]: target and out are said in [{name}]", "remove them here")
    return {key: value for key, value in table.items() if key not in own}, own


def _exports(file: Path, table: Table, out: Path) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Targets that are exported together, and how."""
    common, own = _by_target(file, "export", table)
    shared = _arguments(file, "export", common, out)
    targets = list(dict.fromkeys(shared["target"]))
    _refuse_others(file, "export", own, targets)
    if together := [target for target in targets if target not in own]:
        yield together, {**shared, "target": together}
    for target in targets:
        if target in own:
            yield [target], {**shared, **_overrides(file, "export", own, target), "target": [target]}


def _of_bundles(file: Path, name: str, table: Table, bundles: Mapping[str, Path]) -> Iterator[Stage]:
    """A stage for each bundle, or for each that has a table of its own where nothing is said of all."""
    if not bundles:
        raise EdgetlError(f"{file} has [{name}] and no [export]", f"add [export] with its target, or remove [{name}]")
    common, own = _by_target(file, name, table)
    _refuse_others(file, name, own, list(bundles))
    shared = _arguments(file, name, common)
    for target, bundle in bundles.items():
        if common or not own or target in own:
            arguments = {**shared, **_overrides(file, name, own, target), "bundle": bundle}
            yield Stage(name, f"{name} {target}", arguments, (bundle,))


def _overrides(file: Path, name: str, own: Mapping[str, Table], target: str) -> dict[str, Any]:
    if target not in own:
        return {}
    where = f"{file} [{name}.{target}]"
    return read_options(keys_of(name), own[target], where, tuple(keys_of(name)))


def _refuse_others(file: Path, name: str, own: Mapping[str, Any], targets: list[str]) -> None:
    for target in own:
        if target not in targets:
            raise UnknownNameError(f"key in {file} [{name}]:", target, [*keys_of(name), *targets])
