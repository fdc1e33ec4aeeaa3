"""The table of faults is what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

from edgetl.core.findings import KINDS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_current() -> None:
    script = runpy.run_path(str(DOCS / "faults.py"))
    assert (DOCS / "faults.md").read_text(encoding="utf-8") == script["page"](), "run: python docs/faults.py"


def test_every_kind_is_on_the_page() -> None:
    text = (DOCS / "faults.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text and kind.remedy in text for name, kind in KINDS.items())
