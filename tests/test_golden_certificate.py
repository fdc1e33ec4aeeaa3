"""A certificate of a golden bundle, byte for byte: a change of structure changes no figure.

The bundle was exported from a run of three classes of noisy pictures, int8 for OpenVINO. ``make golden`` writes the
certificate again, to be reviewed before it is committed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import edgetl

GOLDEN = Path(__file__).with_name("golden") / "bundle"


def test_golden_certificate_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(GOLDEN, tmp_path / "bundle"))
    edgetl.verify(bundle)
    again = (bundle / "certificate.json").read_bytes()
    if os.environ.get("EDGETL_UPDATE_GOLDEN"):
        (GOLDEN / "certificate.json").write_bytes(again)
    assert again == (GOLDEN / "certificate.json").read_bytes()
