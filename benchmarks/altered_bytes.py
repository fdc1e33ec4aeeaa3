"""Is each altered byte of a signed bundle refused, by Python and by the C runner?

    python benchmarks/altered_bytes.py LIBRARY BUNDLE [--n 1000] [--out FILE]

LIBRARY is the runner's libedgetl.so. The bundle is copied and signed with a key that is made here; each time one byte
of one of its files, any of them as likely, becomes another one, and both open the bundle with the public key.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgetl.base.errors import EdgetlError
from edgetl.base.storage import write_json
from edgetl.core.bundle import load_bundle
from edgetl.workflow.sign_bundle import sign


class Options(ctypes.Structure):
    """``etl_options`` of edgetl.h."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("threads", ctypes.c_int32),
        ("role", ctypes.c_char_p),
        ("runtime_library", ctypes.c_char_p),
        ("public_key", ctypes.c_char_p),
        ("max_pixels", ctypes.c_uint64),
        ("max_bytes", ctypes.c_uint64),
    )


def c_takes(etl: ctypes.CDLL, folder: Path, key: str) -> bool:
    """Whether the runner opens the bundle; without a runtime, which comes later."""
    options, handle = Options(size=ctypes.sizeof(Options), flags=1, public_key=bytes.fromhex(key)), ctypes.c_void_p()
    status = etl.etl_open(str(folder).encode(), ctypes.byref(options), ctypes.byref(handle))
    etl.etl_close(handle)
    return bool(status == 0)


def python_takes(folder: Path, key: str) -> bool:
    """Whether Python does."""
    try:
        load_bundle(folder, key)
    except EdgetlError:
        return False
    return True


def signed_copy(bundle: Path, folder: Path) -> tuple[Path, str]:
    """A copy of the bundle with a signature, and the public key."""
    copy = Path(shutil.copytree(bundle, folder / "bundle", ignore=shutil.ignore_patterns("signature.*")))
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key").write_bytes(Ed25519PrivateKey.generate().private_bytes(*kind))
    return copy, sign(copy, folder / "key")


def main() -> None:
    """Alter, ask, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    etl, rng = ctypes.CDLL(str(options.library.resolve())), np.random.default_rng(0)
    taken: dict[str, list[str]] = {"c": [], "python": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder, key = signed_copy(options.bundle, Path(scratch))
        if not (c_takes(etl, folder, key) and python_takes(folder, key)):
            raise SystemExit("the bundle is refused as it is")
        files = sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size)
        for _ in range(options.n):
            file = files[rng.integers(len(files))]
            place, change = int(rng.integers(file.stat().st_size)), int(rng.integers(1, 256))
            before = file.read_bytes()
            file.write_bytes(before[:place] + bytes([before[place] ^ change]) + before[place + 1 :])
            for name, takes in (("c", c_takes(etl, folder, key)), ("python", python_takes(folder, key))):
                if takes:
                    taken[name].append(f"{file.relative_to(folder)}:{place}^{change}")
            file.write_bytes(before)
    result = {"altered": options.n, "files": len(files), "taken": taken}
    print(json.dumps(result, indent=1))
    if options.out:
        write_json(options.out, result)
    if any(taken.values()):
        raise SystemExit("an altered bundle was taken")


if __name__ == "__main__":
    main()
