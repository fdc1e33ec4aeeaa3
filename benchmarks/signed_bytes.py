"""Is a signed bundle refused whichever of its bytes is changed? A thousand of them, by host and device runtime.

    python benchmarks/signed_bytes.py BUNDLE [--bytes 1000] [--seed 0] [--out FILE]

The bundle is copied and signed with a key made on the spot. Each turn changes one byte to another value, asks for the
bundle with the public key, and puts the byte back. Three of four bytes are drawn evenly over all that it holds, its
signature among them; every fourth evenly over its files, or most would strike the model. The device runtime is what
``edgetl`` sends to devices, in a Python that can import nothing but its own library, numpy, a decoder and a runtime,
asked for its self-test. Both must refuse in one line (the device with status 2), and take the whole bundle.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.errors import BundleError
from edgetl.base.extras import version
from edgetl.base.storage import write_json
from edgetl.core.bundle import load_bundle
from edgetl.runtime.machine import machine
from edgetl.workflow.sign_bundle import sign
from tests.fuzzing.doors import private_key
from tests.fuzzing.endings import DeviceEnd


def host(bundle: Path, key: str) -> str:
    """Why the bundle is refused here; "" where it is not."""
    try:
        load_bundle(bundle, key)
    except BundleError as error:
        return str(error)
    return ""


def asked(device: DeviceEnd, bundle: Path, key: str) -> tuple[int, int, int]:
    """Exit status, lines on standard output, lines on standard error."""
    ended = device.ask("selftest", bundle, "--threads", "1", "--public-key", key)
    return ended.status, len(ended.out.splitlines()), len(ended.err.splitlines())


def attack(bundle: Path, count: int, seed: int, work: Path) -> dict[str, Any]:
    """Change bytes one at a time; what came of each."""
    copy = work / "bundle"
    shutil.copytree(bundle, copy)
    key = sign(copy, private_key(work / "key.pem"))
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    sizes, draw = [path.stat().st_size for path in files], random.Random(seed)
    here: Counter[bool] = Counter()
    there: Counter[bool] = Counter()
    struck: Counter[str] = Counter()
    with closing(DeviceEnd(work / "device")) as device:
        assert asked(device, copy, key) == (0, 1, 0), "the whole bundle is taken"
        assert host(copy, key) == ""
        for turn in range(count):
            file = draw.choices(files, sizes)[0] if turn % 4 else draw.choice(files)
            place, change = draw.randrange(file.stat().st_size), draw.randrange(1, 256)
            with file.open("r+b") as stream:
                stream.seek(place)
                (before,) = stream.read(1)
                stream.seek(place)
                stream.write(bytes([before ^ change]))
            here[bool(host(copy, key))] += 1
            there[asked(device, copy, key) == (2, 0, 1)] += 1
            struck[file.relative_to(copy).as_posix()] += 1
            with file.open("r+b") as stream:
                stream.seek(place)
                stream.write(bytes([before]))
        assert asked(device, copy, key) == (0, 1, 0), "the whole bundle is taken again"
    refused = {"host": here[True], "device_runtime": there[True]}
    return {"bytes": count, "refused": refused, "files": dict(sorted(struck.items())), "size": sum(sizes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--bytes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "signed_bytes.json")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        found = attack(options.bundle, options.bytes, options.seed, Path(work))
    about = {name: machine()[name] for name in ("cpu_model", "cores", "arch")}
    versions = {"python": sys.version.split()[0], "cryptography": version("cryptography")}
    found |= {"seed": options.seed, "machine": about, "versions": versions}
    write_json(options.out, {**found, "seconds": round(time.perf_counter() - began, 1)})
    print(json.dumps(found["refused"]))


if __name__ == "__main__":
    main()
