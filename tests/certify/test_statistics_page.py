"""The page of the test's error rates is what the benchmark measured."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_current() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "certificate.py"))
    written = (ROOT / "docs" / "certificate.md").read_text(encoding="utf-8")
    assert written == script["page"](), "run: python docs/certificate.py"


def test_no_cell_passes_more_often_than_allowed() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "size_simulation.json").read_text())
    sizes = [cell["size"] for cell in measured["accuracy"] if cell["size"] is not None]
    assert len(sizes) > 50
    assert max(sizes) <= 0.0501
    for cells in (measured["balanced"], measured["label_sets"], measured["regression"]):
        held = [cell for cell in cells if not cell.get("beyond")]
        assert len(held) > 5
        assert all(cell["size"] <= 0.05 + 3 * cell["error"] for cell in held)
