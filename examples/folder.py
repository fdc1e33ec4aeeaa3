"""What a bundle says of every file in a folder, as CSV: several files in one inference.

    python examples/folder.py out/rpi5 photos/ --batch 8 > answers.csv

Takes edgetl's core and the bundle's runtime; no torch.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import edgetl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=8, help="files of one inference")
    options = parser.parse_args()
    model = edgetl.load_bundle(options.bundle)
    files = sorted(file for file in options.folder.rglob("*") if file.is_file())
    table = csv.writer(sys.stdout)
    table.writerow(["path", "label", "probability", "value"])
    for start in range(0, len(files), options.batch):
        some = files[start : start + options.batch]
        for file, answer in zip(some, model.predict(some, batch=options.batch), strict=True):
            table.writerow([file.relative_to(options.folder), answer.label, answer.probability, answer.value])


if __name__ == "__main__":
    try:
        main()
    except edgetl.EdgetlError as error:
        sys.exit(f"error: {error}")
