"""Doing the stages of a journey, each once: what was done is kept beside its outcome, under all that it depended on.

    OUT/.journey/export-jetson.json, verify-jetson.json, …   a record for each stage that is over

Training and adoption are asked for each time: they know whether they are finished, and whether the data changed. Of
export, verify, bench and report, one is not done again while its options, what it works on and the files that it wrote
are as they were. A process that was killed left no record of what it was at, which takes itself up or starts over.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import version
from edgetl.base.lock import exclusive
from edgetl.base.schema import Json, from_json, to_json
from edgetl.base.storage import read_json, sha256_bytes, sha256_file, sha256_json, write_json
from edgetl.cli.journey.file import COMMANDS, Journey, Stage
from edgetl.cli.output import Outcome, collected, note
from edgetl.compress.foreign.artifact import artifact_files
from edgetl.core.bundle import BENCH, CERTIFICATE, MANIFEST, load_bundle
from edgetl.core.run import MANIFEST as RUN

RECORDS = ".journey"
#: Exit statuses of commands, the worst first: a certificate fails, a device failed, too few samples to tell.
_WORST = (3, 2, 4, 0)
#: What a bundle is made with: another version may make another one.
_MAKERS = ("edgetl", "torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt_rtx", "tensorrt", "ai_edge_litert")
#: A run and a bundle seal all that is in them by these; records are made later.
_SEALS, _RECORDED = (RUN, MANIFEST), (CERTIFICATE, BENCH)


@dataclass(frozen=True)
class Done:
    """A stage that is over.

    Attributes:
        stage: its title.
        status: exit status of its command.
        outcome: what its command prints with ``--json``.
        key: SHA-256 of all that it depended on; "" of one that is asked for each time.
        made: SHA-256 of each file that it wrote, by path.
    """

    stage: str
    status: int
    outcome: Json
    key: str
    made: Mapping[str, str]


@dataclass(frozen=True)
class Passed:
    """A stage as a journey passed it: what came of it, and what to draw; None where nothing had to be done."""

    done: Done
    drawn: Outcome | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        done = self.done
        return {
            "stage": done.stage,
            "status": done.status,
            "unchanged": self.drawn is None,
            "outcome": done.outcome,
        }


def worst(statuses: list[int]) -> int:
    """The exit status of several commands."""
    return next((status for status in _WORST if status in statuses), 0)


def follow(journey: Journey, *, quiet: bool) -> Iterator[Passed]:
    """Do the stages in order, but for those that are done.

    Raises:
        EdgetlError: a stage cannot be done, or another process is at this journey.
    """
    records = journey.out / RECORDS
    with exclusive(records, "journey"):
        for number, stage in enumerate(journey.stages, 1):
            place = f"{number}/{len(journey.stages)} {stage.title}"
            there = _standing(journey, stage, records)
            if there is not None:
                note(f"{place}: nothing it depends on has changed")
                yield Passed(there, None)
                continue
            note(place)
            done, outcome = _do(journey, stage, quiet=quiet)
            # What failed on a device is tried again.
            if done.key and done.status != EdgetlError.exit_status:
                write_json(_record(records, stage), to_json(done))
            yield Passed(done, outcome)


def _do(journey: Journey, stage: Stage, *, quiet: bool) -> tuple[Done, Outcome]:
    key = _key(stage)
    command = COMMANDS[stage.name]
    silence = {"quiet": quiet} if "quiet" in inspect.signature(command).parameters else {}
    with collected() as found:
        status = command(**stage.arguments, **silence) or 0
    outcome = found[-1]
    plain = json.loads(json.dumps(outcome.value, default=str))
    made = {str(file): sha256_file(file) for file in _files(journey, stage)}
    return Done(stage.title, status, plain, key, made), outcome


def _standing(journey: Journey, stage: Stage, records: Path) -> Done | None:
    """The record of a stage that is done, if all is as it was then."""
    file = _record(records, stage)
    key = _key(stage)
    if not key or not file.is_file():
        return None
    try:
        done = from_json(Done, read_json(file), file)
        if done.key != key or set(done.made) != {str(made) for made in _files(journey, stage)}:
            return None
        for bundle in stage.bundles:
            load_bundle(bundle)
        return done if all(sha256_file(Path(made)) == digest for made, digest in done.made.items()) else None
    except (EdgetlError, OSError):
        return None


def _record(records: Path, stage: Stage) -> Path:
    words = "-".join(re.findall(r"[\w.]+", stage.title))
    # Names of targets are the user's, and there may be many.
    return records / f"{words[:80]}-{sha256_bytes(stage.title.encode())[:8]}.json"


def _key(stage: Stage) -> str:
    """SHA-256 of all that a stage depends on; "" of one that looks for itself whether it is done."""
    if not stage.works_on:
        return ""
    sealed = _SEALS + (_RECORDED if stage.name == "report" else ())
    files = [folder / name for folder in stage.works_on for name in sealed]
    given = [value for value in stage.arguments.values() if isinstance(value, Path)]
    files += [place for value in given for place in (value, *(value / seal for seal in _SEALS))]
    files += _weights(stage.arguments.get("artifact"))
    if isinstance(images := stage.arguments.get("images"), Path):
        files += sorted(images.rglob("*"))
    return sha256_json(
        {
            "stage": stage.name,
            "arguments": {name: _plain(value) for name, value in stage.arguments.items()},
            "files": {str(file): sha256_file(file) for file in files if file.is_file() and file != stage.page},
            "versions": {name: version(name) for name in _MAKERS},
        }
    )


def _weights(artifact: Path | None) -> tuple[Path, ...]:
    """The files that an artifact of another tool consists of, besides its own."""
    try:
        return () if artifact is None else artifact_files(artifact)[1:]
    except EdgetlError:
        return ()


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _files(journey: Journey, stage: Stage) -> list[Path]:
    """What a stage writes, and no later one writes again."""
    if stage.page is not None:
        return [stage.page]
    if stage.name == "bench":
        devices = stage.arguments.get("device") or []
        names = [f"bench-{device}.json" for device in devices] if len(devices) > 1 else [BENCH]
        return [bundle / name for bundle in stage.works_on for name in names]
    if stage.name == "verify":
        return [bundle / CERTIFICATE for bundle in stage.works_on]
    verified = {bundle for later in journey.stages if later.name == "verify" for bundle in later.works_on}
    certificates = [bundle / CERTIFICATE for bundle in stage.bundles if bundle not in verified]
    return [*(bundle / MANIFEST for bundle in stage.bundles), *certificates]
