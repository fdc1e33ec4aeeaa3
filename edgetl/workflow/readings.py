"""Every reading of the certify split, so that nobody looks until a verdict pleases.

    RUN/readings.jsonl     one line for each reading of any of the run's bundles: a Reading and its bundle's splits
    DIR/.work/runs.json    digest of a run → its folder, on the machine that exported it

A certificate quotes those of its bundle's target that came before it. The first one registers the terms, which is
what ``edgetl export`` does; a later certificate on other terms says so. Where the run is not at hand, the certificate
that is replaced tells of the readings before: it is one itself. The same predictions on the same terms are no further
look.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edgetl.base.errors import EdgetlError, RunError
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import parse_json, read_json, write_bytes, write_json
from edgetl.core.bundle import CERTIFICATE, Bundle
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Reading
from edgetl.core.run import MANIFEST, READINGS, Run
from edgetl.core.run_record import read_run_record

RUNS_NOTE = ".work/runs.json"


def note_run(out: Path, run: Run) -> None:
    """Remember on this machine where the run of the bundles in ``out`` lies."""
    file = out / RUNS_NOTE
    known = read_json(file) if file.is_file() else {}
    noted = {**(known if isinstance(known, dict) else {}), run.digest: str(run.path.resolve())}
    if noted != known:
        write_json(file, noted)


def readings_before(bundle: Bundle) -> tuple[Reading, ...]:
    """What is known to have been read of the bundle's certify split, the first one first.

    Raises:
        RunError: the run's ledger is malformed.
    """
    return (*_of_run(bundle), *_of_certificate(bundle))


def before(look: Reading, readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """What came before a look at the same target, each look once; a last one that is the same is this one."""
    found: dict[Reading, str] = {}
    for reading in readings:
        if reading.target == look.target:
            found.setdefault(_undated(reading), reading.when)
    if found and next(reversed(found)) == _undated(look):
        found.popitem()
    return tuple(replace(reading, when=when) for reading, when in found.items())


def look_of(bundle: Bundle, certificate: Certificate, when: str = "") -> Reading:
    """A certificate as one reading."""
    return Reading(
        target=bundle.manifest.name or bundle.target,
        metric=certificate.metric,
        margin=certificate.margin,
        alpha=certificate.alpha,
        sequential=certificate.sequential,
        verdict=certificate.verdict,
        n=certificate.n,
        executed=certificate.executed,
        device=str(certificate.executed_on.get("device", certificate.executed_on.get("name", ""))),
        artifact=certificate.hashes.get("model", ""),
        predictions=certificate.hashes.get("predictions", ""),
        when=when,
    )


def enter(bundle: Bundle, certificate: Certificate) -> None:
    """Add a reading to the run's ledger, where the run is at hand and the look is a new one."""
    ledger = _ledger(bundle)
    look = look_of(bundle, certificate, datetime.now(UTC).isoformat(timespec="seconds"))
    if ledger is None or _undated(look) in map(_undated, _of_run(bundle)):
        return
    line = json.dumps({"splits": bundle.splits, **to_json(look)}, sort_keys=True)
    held = ledger.read_bytes() if ledger.is_file() else b""
    # Whoever may not write into the run still gets a certificate, which tells of itself.
    with contextlib.suppress(EdgetlError):
        write_bytes(ledger, held + line.encode() + b"\n")


def _undated(reading: Reading) -> Reading:
    return replace(reading, when="")


def _ledger(bundle: Bundle) -> Path | None:
    trained, note = bundle.manifest.run, bundle.path.absolute().parent / RUNS_NOTE
    if trained is None or not note.is_file():
        return None
    known = read_json(note)
    folder = Path(str(known.get(trained.digest, ""))) if isinstance(known, dict) else Path()
    with contextlib.suppress(EdgetlError, OSError):
        # A note may be anybody's: nothing is written but into the very run.
        if trained.weights_sha256 in read_run_record(folder / MANIFEST).files.values():
            return folder / READINGS
    return None


def _of_run(bundle: Bundle) -> Iterator[Reading]:
    ledger = _ledger(bundle)
    if ledger is None or not ledger.is_file():
        return
    for number, line in enumerate(ledger.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = dict(parse_json(line))
            splits = record.pop("splits")
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{ledger}, line {number} is malformed", "restore the file") from error
        if splits == bundle.splits:
            yield from_json(Reading, record, f"{ledger}, line {number}", RunError, "restore the file")


def _of_certificate(bundle: Bundle) -> Iterator[Reading]:
    with contextlib.suppress(EdgetlError):
        held = bundle.certificate
        if held is not None:
            yield from held.readings
            written = (bundle.path / CERTIFICATE).stat().st_mtime
            yield look_of(bundle, held, datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds"))
