"""One self-contained HTML page from bundles and runs: no script, no request, the same bytes every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgetl.base import wording
from edgetl.base.errors import EdgetlError
from edgetl.base.extras import require
from edgetl.base.storage import write_bytes
from edgetl.core.bundle import Bundle
from edgetl.core.run import Run
from edgetl.core.transfer_outcome import TransferOutcome
from edgetl.reporting import charts, metrics, page, terms
from edgetl.reporting.runs.section import run_section

_TEMPLATE = "report.html.j2"
NOTHING: Mapping[Path, TransferOutcome] = {}


def write_report(
    sources: Sequence[Run | Bundle],
    out: Path,
    *,
    data_root: Path | None = None,
    transfers: Mapping[Path, TransferOutcome] = NOTHING,
) -> Path:
    """Write the page.

    Args:
        sources: what to report on, in this order; at least one.
        out: the HTML file, replaced if it exists.
        data_root: where the samples lie now; by default where they lay when the run was made.
        transfers: what each run tells of its transfer, by its folder.

    Returns:
        ``out``.

    Raises:
        EdgetlError: there is nothing to report on, or the file cannot be written.
        BundleError, RunError: a record was altered.
        MissingExtraError: jinja2 is not installed.
    """
    write_bytes(out, render(sources, data_root=data_root, transfers=transfers).encode())
    return out


def render(
    sources: Sequence[Run | Bundle],
    *,
    data_root: Path | None = None,
    transfers: Mapping[Path, TransferOutcome] = NOTHING,
) -> str:
    """The page as text; see :func:`write_report`."""
    if not sources:
        raise EdgetlError("there is no bundle or run to report on", "name at least one")
    bundles = [source for source in sources if isinstance(source, Bundle)]
    runs = [
        run_section(run, i, data_root=data_root, transfer=transfers.get(run.path))
        for i, run in enumerate(_runs(sources), 1)
    ]
    sections = [page.section(bundle, i, data_root=data_root) for i, bundle in enumerate(bundles, 1)]
    template = _environment().get_template(_TEMPLATE)
    text: str = template.render(
        title="Transfer report" if bundles else "Training report",
        subjects=[*(s.name for s in runs), *(s.row.target for s in sections)],
        runs=runs,
        bundles=sections,
        verdicts=sorted(Counter(s.row.verdict for s in sections).items()),
        overview=_overview(sections),
        comparable=_same_samples(sections),
    )
    return text


def _runs(sources: Sequence[Run | Bundle]) -> list[Run]:
    return [source for source in sources if isinstance(source, Run)]


def _environment() -> Any:
    jinja2 = require("jinja2", "the HTML report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgetl.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_together,
    )
    environment.globals["w"] = wording
    environment.globals["terms"] = terms
    environment.filters["printable"] = wording.printable
    environment.filters["lines"] = terms.lines
    return environment


def _together(value: Any) -> Any:
    """Whatever is printed, with each figure and its sign of percent on one line."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value


def _overview(sections: Sequence[page.Section]) -> list[str]:
    """The differences of several bundles side by side, a chart for each metric that two or more have."""
    groups: dict[tuple[str, str, str], list[charts.Interval]] = {}
    for index, section in enumerate(sections, 1):
        certificate = section.row.certificate
        if certificate:
            row = page.interval(certificate, f"{index}. {section.row.target}")
            groups.setdefault((certificate.task, certificate.metric, certificate.unit), []).append(row)
    several = [(key, rows) for key, rows in groups.items() if len(rows) > 1]
    return [
        charts.intervals(f"overview-{index}", metrics.title(task, metric), unit, rows)
        for index, ((task, metric, unit), rows) in enumerate(several, 1)
    ]


def _same_samples(sections: Sequence[page.Section]) -> bool:
    certificates = [section.row.certificate for section in sections]
    return len({one.hashes.get("splits") for one in certificates if one}) < 2
