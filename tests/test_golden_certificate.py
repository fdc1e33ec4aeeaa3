"""A certificate of a golden bundle, byte for byte but for the last digits of numbers, in which processors differ.

The bundle was exported from a run of three classes of noisy pictures, int8 for OpenVINO. ``make golden`` writes the
certificate again, to be reviewed before it is committed.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import edgetl

GOLDEN = Path(__file__).with_name("golden") / "bundle"


def to_twelve_digits(certificate: str) -> str:
    """The file's text with shorter numbers, and without the digest, which depends on every digit."""
    shorter = re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda found: f"{float(found[0]):.12g}", certificate)
    return re.sub(r'"digest": "[0-9a-f]{64}"', "", shorter)


def test_golden_certificate_is_made_again(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(GOLDEN, tmp_path / "bundle"))
    edgetl.verify(bundle)
    again = (bundle / "certificate.json").read_text(encoding="utf-8")
    if os.environ.get("EDGETL_UPDATE_GOLDEN"):
        (GOLDEN / "certificate.json").write_text(again, encoding="utf-8")
    assert to_twelve_digits(again) == to_twelve_digits((GOLDEN / "certificate.json").read_text(encoding="utf-8"))
