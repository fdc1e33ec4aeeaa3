"""A run or a bundle as the journey that repeats it: from what they keep, and from nothing else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from tomlkit.items import InlineTable

from edgetl.base.errors import EdgetlError
from edgetl.base.schema import Json
from edgetl.base.storage import sha256_file
from edgetl.cli.journey.file import keys_of
from edgetl.cli.journey.options import read_options
from edgetl.core.adoption import Adoption
from edgetl.core.bundle import Bundle
from edgetl.core.bundle_files import NO_ROOT, samples_root
from edgetl.core.data import SHARES, is_embedded
from edgetl.core.run import PREPROCESS_FILE, Run
from edgetl.tasks import find_task
from edgetl.workflow.answers import reference
from edgetl.workflow.sources import open_source

#: What a bundle keeps of its export → the options that ask for it.
_ASKED = {"precision": "precision", "selection": "samples", "size": "calibration-images", "batch": "batch"}
#: What an adoption says of what only Python can give.
_IN_MEMORY = {
    "module": "its model was a module in memory",
    "the names given": "its classes were names in memory",
}
_DECLARED = "declared"
_HEAD = "Repeats {what}: edgetl run THIS_FILE"
#: Keys of ``[export]`` that name a file, of which a bundle keeps the name.
_NAMED = ("artifact",)
_LOST = "The bundle does not say where this lies on this machine: correct it."


@dataclass(frozen=True)
class _Trained:
    """What a run and a bundle keep alike of how a model came about.

    Attributes:
        settings, lineage, task: as in ``run.json``.
        input: how a sample became the network's input.
        adoption: of a model that was trained elsewhere.
        baseline: its kind; None without one.
        whole: whether places are named, as a run does; a bundle names only files.
        data: where the samples lie, as far as that is known.
        preprocess: a file with ``input``.
    """

    settings: Mapping[str, Json]
    lineage: Mapping[str, Json]
    input: Mapping[str, Json]
    adoption: Adoption | None
    baseline: str | None
    task: str
    whole: bool
    data: str
    preprocess: Path


def written(source: Path) -> str:
    """The TOML that repeats a run or a bundle; ASCII, whatever the names in it.

    Raises:
        EdgetlError: neither is there, or it was made by what no command line says.
    """
    opened = open_source(source)
    trained = _of_run(opened) if isinstance(opened, Run) else _of_bundle(opened)
    adoption = trained.adoption
    if trained.lineage.get("members"):
        raise EdgetlError(f"{source} is a mean of several runs", "write the file of each of them, and give edgetl soup")
    name = "finetune" if adoption is None else "adopt"
    tables = {name: _finetune(trained) if adoption is None else _adopt(trained, adoption)}
    if isinstance(opened, Bundle):
        tables["export"] = _export(opened)
    for table, values in tables.items():
        # What stands in a record is anybody's: it must not become a file that is refused, or says something else.
        read_options(keys_of(table), values, f"{source} [{table}]", ("out",))
    lost = set() if trained.whole else {key for key, value in tables[name].items() if _is_lost(name, key, value)}
    head = _HEAD.format(what="the run" if isinstance(opened, Run) else "the bundle")
    return _toml(head, f"{source.resolve().name}-again", tables, lost)


def _of_run(run: Run) -> _Trained:
    return _Trained(
        settings=run.settings,
        lineage=run.lineage,
        input=run.input_record,
        adoption=run.adoption,
        baseline=run.baseline.kind if run.baseline else None,
        task=run.task,
        whole=True,
        data=str(run.settings.get("data", "")),
        preprocess=run.path / PREPROCESS_FILE,
    )


def _of_bundle(bundle: Bundle) -> _Trained:
    trained = bundle.manifest.run
    if trained is None:
        raise EdgetlError(f"{bundle.path} does not say which run it was made from", "export it from a run")
    kept = reference(bundle)
    return _Trained(
        settings=trained.settings,
        lineage=bundle.manifest.lineage,
        input=trained.input,
        adoption=trained.adoption,
        baseline=kept.baseline_kind if kept.baseline is not None else None,
        task=bundle.manifest.task,
        whole=False,
        data=_found(bundle, trained.settings),
        preprocess=bundle.path / PREPROCESS_FILE,
    )


def _found(bundle: Bundle, settings: Mapping[str, Json]) -> str:
    """The data of a bundle's run on this machine, or only its name where that is not known."""
    name, home = str(settings.get("data", "")), samples_root(bundle.path, bundle.splits)
    if is_embedded(name) or str(home) == NO_ROOT:
        return name
    digest = settings.get("data_sha256")
    for place in (home, *home.parents):
        file = place / name
        if digest is not None and file.is_file() and sha256_file(file) == digest:
            return str(file)
        if digest is None and place.name == name and place.is_dir():
            return str(place)
    return name


def _finetune(trained: _Trained) -> dict[str, Json]:
    settings, options = trained.settings, keys_of("finetune")
    shares = settings.get("shares")
    if shares is not None and {k: v for k, v in shares.items() if v} != {k: v for k, v in SHARES.items() if v}:
        what = f"its splits have shares of their own ({', '.join(f'{k} {v:g}' for k, v in shares.items())})"
        raise EdgetlError(f"no command line says how this run was made: {what}", "repeat it in Python: shares=…")
    values = _from_command(trained.lineage.get("command"), "finetune")
    values |= {key: settings[o.parameter] for key, o in options.items() if o.parameter in settings}
    values |= {"data": trained.data, "task": trained.task, "baseline": trained.baseline, "augment": _augment(trained)}
    height, width = trained.input.get("height"), trained.input.get("width")
    values["image-size"] = height if height == width else None
    weights = values.get("weights")
    # A start from another run is kept as the weights of that run, too; a column beside it has its own.
    column = dict(settings.get("details") or {}).get("column")
    beside = column is not None and dict(column).get("start") != "previous"
    if weights == "pretrained" or ("from" in values and not beside):
        values["weights"] = None
    elif weights not in (None, "none") and Path(str(weights)).exists():
        values["weights"] = str(Path(str(weights)).resolve())
    # A strategy without gradient steps has none of these, and takes none.
    for key in ("epochs", "learning-rate"):
        values[key] = values.get(key) or None
    return _needed("finetune", values)


def _augment(trained: _Trained) -> str | None:
    """How its images varied, where that is not what they do by default.

    Raises:
        EdgetlError: a file said so, which a run does not keep.
    """
    kept = trained.settings.get("augment") or {}
    name = kept.get("name", "light")
    if "steps" in kept:
        what = "no command line says how this run was made: a file said how its images vary"
        raise EdgetlError(what, "write the steps in its settings into a TOML file, and give that to finetune --augment")
    return None if name == "light" else str(name)


def _adopt(trained: _Trained, adoption: Adoption) -> dict[str, Json]:
    for given, held in _IN_MEMORY.items():
        if given in (adoption.source, adoption.names_told_by):
            raise EdgetlError(
                f"no command line says how this run was made: {held}", "repeat it in Python: edgetl.adopt"
            )
    values = _from_command(trained.lineage.get("command"), "adopt")
    values |= {"data": trained.data, "task": trained.task, "seed": trained.settings.get("seed", 0)}
    # Given in Python it has no file of its own.
    if "preprocess" not in values and _DECLARED in adoption.told_by.values():
        values["preprocess"] = str(trained.preprocess.resolve())
    return _needed("adopt", values)


def _export(bundle: Bundle) -> dict[str, Json]:
    manifest, certificate = bundle.manifest, bundle.certificate
    # Bundles from before this was kept say it of what became of it; only repair turns int8 into something else.
    asked = manifest.request or {"precision": "int8" if manifest.repair else bundle.precision}
    values: dict[str, Json] = {"target": [manifest.name or manifest.target.name]}
    values |= {_ASKED.get(name, name): value for name, value in asked.items() if name not in ("margin", "minutes")}
    if values.get("precision") == manifest.target.default_precision:
        del values["precision"]
    if "minutes" in asked:
        values |= {"budget-minutes": asked["minutes"]} if asked["minutes"] else {"repair": False}
    if certificate is not None:
        metric = certificate.metric
        values |= {"alpha": certificate.alpha, "margin": certificate.margin}
        values["value-range"] = None if certificate.value_range is None else list(certificate.value_range)
        values["metric"] = None if metric == find_task(manifest.task).metric else metric
    if "margin" in asked and asked.get("minutes"):
        values["margin"] = asked["margin"]
    return _needed("export", values)


def _from_command(command: Json, verb: str) -> dict[str, Json]:
    """What a recorded command line says: ``edgetl VERB VALUE --KEY VALUE …``."""
    options = keys_of(verb)
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        words = []
    found: dict[str, Json] = {}
    if words[:2] == ["edgetl", verb] and len(words) > 2:
        found[next(iter(options))] = words[2]
        for key, value in zip(words[3::2], words[4::2], strict=False):
            option = options.get(key.removeprefix("--"))
            if option is not None and option.many:
                found[option.key] = [*found.get(option.key, []), value]
            elif option is not None and (option.takes(str) or option.takes(Path)):
                found[option.key] = value
    return found


def _needed(table: str, values: Mapping[str, Json]) -> dict[str, Json]:
    """Those that say something: no defaults, in the order of ``--help``."""
    options = keys_of(table)
    said = {key: option for key, option in options.items() if values.get(key) not in (None, {}, []) and key != "out"}
    return {key: values[key] for key, option in said.items() if values[key] != option.default}


def _is_lost(table: str, key: str, value: Json) -> bool:
    """Whether a value names a file or folder that is not where it says."""
    option = keys_of(table)[key]
    if key == "data":
        return not is_embedded(str(value)) and not Path(str(value)).exists()
    path = option.takes(Path) or key in ("model", "unseen") or (key == "weights" and value != "none")
    return path and not Path(str(value)).is_absolute()


def _inline(values: Mapping[str, Json]) -> InlineTable:
    """``NAME=VALUE`` pairs; TOML has no null, which is a default in any case."""
    table = tomlkit.inline_table()
    table.update({name: value for name, value in values.items() if value is not None})
    return table


def _toml(head: str, out: str, tables: Mapping[str, Mapping[str, Json]], lost: Collection[str]) -> str:
    """The document; ``lost`` are keys of what began the run whose values have to be corrected."""
    document = tomlkit.document()
    document.add(tomlkit.comment(head))
    document.add("out", tomlkit.item(out))
    for name, values in tables.items():
        table = tomlkit.table()
        for key, value in values.items():
            if key in (_NAMED if name == "export" else lost):
                table.add(tomlkit.comment(_LOST))
            table.add(key, _inline(value) if isinstance(value, dict) else value)
        document.add(tomlkit.nl())
        document.add(name, table)
    # A shell writes standard output in the encoding of its locale; TOML is UTF-8.
    return re.sub(r"[^\n\x20-\x7e]", lambda c: f"\\U{ord(c[0]):08x}", tomlkit.dumps(document))
