"""What reading a data set costs: 100,000 small pictures, and pictures of 50 megapixels, in two checkouts.

    python benchmarks/data_scan.py before=CHECKOUT after=. [--files N] [--out FILE]

Each measurement is a process of its own. Resident memory is that of the whole process at its highest, and before it
read anything. Order: all of one checkout, then all of the next; the files are read once before, so that both find them
in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.storage import write_json
from edgetl.runtime.machine import machine

FILES, CLASSES, SIDE = 100_000, 10, 16
#: Width and height of a 50-megapixel photograph.
LARGE = (8660, 5774)
CHILD = """
import json, re, sys, time
from pathlib import Path
from edgetl.inputs import Preprocess, load_dataset
from edgetl.inputs.pictures import decode, fingerprint

def memory(what):
    return int(re.search(what + r":\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

right = Preprocess(224, 224, 256, "bicubic", (0.5,) * 3, (0.5,) * 3)
works = {"scan": load_dataset, "fingerprint": fingerprint, "network input": right.apply}
import PIL.Image; PIL.Image.init(); import concurrent.futures
first, began = memory("VmRSS"), time.monotonic()
works[sys.argv[1]](Path(sys.argv[2]))
print(json.dumps({"seconds": round(time.monotonic() - began, 2), "peak_rss_mb": round(memory("VmHWM")),
                  "rss_before_mb": round(first)}))
"""


def measured(checkout: Path, work: str, path: Path) -> dict[str, float]:
    """Seconds and memory of one piece of work in a process that imports this checkout."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, work, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        cwd=checkout,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def small_pictures(folder: Path, files: int) -> Path:
    """So many pictures of noise, in :data:`CLASSES` folders."""
    draw = np.random.default_rng(0)
    for index in range(CLASSES):
        (folder / f"class{index}").mkdir(parents=True)
    for index in range(files):
        picture = Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        picture.save(folder / f"class{index % CLASSES}" / f"{index:06d}.png", compress_level=1)
    return folder


def _sixteen_bits(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L"), np.uint16) << 4)


#: Kinds of large pictures: suffix, and what becomes of an RGB one.
KINDS: Mapping[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "JPEG": (".jpg", lambda picture: picture),
    "PNG": (".png", lambda picture: picture),
    "PNG, palette": (".png", lambda picture: picture.quantize(16)),
    "PNG, 12 of 16 bits of grey": (".png", _sixteen_bits),
}


def large_pictures(folder: Path) -> dict[str, Path]:
    """One photograph-like picture of 50 megapixels of each kind."""
    folder.mkdir()
    draw = np.random.default_rng(1)
    coarse = Image.fromarray(draw.integers(0, 256, (60, 90, 3), dtype=np.uint8))
    picture = coarse.resize(LARGE, Image.Resampling.BICUBIC)
    files: dict[str, Path] = {}
    for name, (suffix, change) in KINDS.items():
        files[name] = folder / f"{len(files)}{suffix}"
        # A format takes what it knows of these.
        change(picture).save(files[name], compress_level=1, quality=90)
    return files


def large_set(folder: Path) -> Path:
    """Two classes of six flat PNG files of 50 megapixels: a few hundred kilobytes each."""
    for index in range(12):
        file = folder / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", LARGE, (20 * index, 255 - 20 * index, 90)).save(file, compress_level=1)
    return folder


def main() -> None:
    """Measure and write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("checkouts", nargs="+", metavar="NAME=FOLDER")
    options.add_argument("--files", type=int, default=FILES)
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data_scan.json")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        small = small_pictures(Path(scratch) / "small", given.files)
        large, many = large_pictures(Path(scratch) / "large"), large_set(Path(scratch) / "many")
        rows: list[dict[str, Any]] = []
        for name, folder in (word.split("=", 1) for word in given.checkouts):
            checkout = Path(folder).resolve()
            load = os.getloadavg()[0]
            found = {f"scan of {given.files} pictures of {SIDE}x{SIDE}": measured(checkout, "scan", small)}
            found["scan of 12 PNG files of 50 megapixels"] = measured(checkout, "scan", many)
            for kind, file in large.items():
                for work in ("fingerprint", "network input"):
                    found[f"{work} of one of 50 megapixels: {kind}"] = measured(checkout, work, file)
            rows += [
                {"checkout": name, "work": work, "load_average": round(load, 1), **row} for work, row in found.items()
            ]
            print(json.dumps(rows[-len(found) :], indent=1), file=sys.stderr)
    write_json(given.out, {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "rows": rows})


if __name__ == "__main__":
    main()
