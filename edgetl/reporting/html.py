"""One self-contained HTML page from one or more bundles: no script, no request, the same bytes every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edgetl.base.errors import BundleError
from edgetl.base.extras import require
from edgetl.base.storage import write_bytes
from edgetl.core.bundle import CERTIFICATE, Bundle
from edgetl.reporting import charts, page, wording

_TEMPLATE = "report.html.j2"


def write_report(bundles: Sequence[Bundle], out: Path, *, data_root: Path | None = None) -> Path:
    """Write the page.

    Args:
        bundles: what to report on, in this order; at least one.
        out: the HTML file, replaced if it exists.
        data_root: where the images lie now; by default where they lay when the run was made.

    Returns:
        ``out``.

    Raises:
        BundleError: no bundle was given, or a record was altered.
        MissingExtraError: jinja2 is not installed.
        EdgetlError: the file cannot be written.
    """
    write_bytes(out, render(bundles, data_root=data_root).encode())
    return out


def render(bundles: Sequence[Bundle], *, data_root: Path | None = None) -> str:
    """The page as text; see :func:`write_report`."""
    if not bundles:
        raise BundleError("there is no bundle to report on", "name at least one")
    jinja2 = require("jinja2", "the HTML report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgetl.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["w"] = wording
    environment.filters["printable"] = wording.printable
    sections = [page.section(bundle, i, data_root=data_root) for i, bundle in enumerate(bundles, 1)]
    drawn = [page.interval(s.row, f"{i}. {s.row.target}") for i, s in enumerate(sections, 1)]
    intervals = [row for row in drawn if row is not None]
    text: str = environment.get_template(_TEMPLATE).render(
        sections=sections,
        verdicts=sorted(Counter(s.row.verdict for s in sections).items()),
        overview=charts.intervals("overview", intervals) if len(intervals) > 1 else "",
        comparable=_same_images(bundles),
    )
    return text


def _same_images(bundles: Sequence[Bundle]) -> bool:
    certificates = [bundle.record(CERTIFICATE) for bundle in bundles]
    return len({(c.get("hashes") or {}).get("splits") for c in certificates if c}) < 2
