"""Can every backbone that edgetl lists be trained? Each is built and asked on torch's meta device, at its own size.

    python benchmarks/backbones.py [PATTERN] [--out FILE]

Shapes alone are computed: no weights are downloaded, and nothing takes memory. What is refused here is listed and
cannot be used: the rule in edgetl/transfer/backbones.py then lacks a case.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import version
from edgetl.base.storage import write_json
from edgetl.runtime.machine import machine
from edgetl.transfer.backbones import Backbone, every_name, list_backbones
from edgetl.transfer.fitting import refusal
from edgetl.transfer.weights import WeightsSource

RESULTS = Path(__file__).parent / "results" / "backbones.json"


def refused(backbone: Backbone) -> str | None:
    """Why a listed backbone of images answers to none of its own size; None if it does."""
    if backbone.preprocess is None:
        return None
    try:
        return refusal(backbone, WeightsSource("none"), backbone.preprocess)
    except EdgetlError as error:
        return error.what


def main() -> None:
    """Try all that match and write how many can be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    began, listed = time.monotonic(), list_backbones(options.pattern)
    wrong: dict[str, Any] = {}
    for number, backbone in enumerate(listed, 1):
        reason = refused(backbone)
        if reason is not None:
            wrong[backbone.name] = reason
        print(f"{number} of {len(listed)}: {backbone.name} {reason or ''}", file=sys.stderr)
    record = {
        "known": len(every_name()),
        "listed": len(listed),
        "refused": wrong,
        "seconds": round(time.monotonic() - began),
        "versions": {name: version(name) for name in ("torch", "timm", "torchvision")},
        "machine": machine(),
    }
    write_json(options.out, record)


if __name__ == "__main__":
    main()
