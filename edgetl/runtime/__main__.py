"""The device's end of edgetl: ``python -m edgetl.runtime VERB BUNDLE …`` prints one JSON object.

Works with numpy, Pillow and one runtime installed, and nothing else of edgetl's dependencies.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.bundle import Bundle, load_bundle
from edgetl.errors import EdgetlError
from edgetl.progress import Progress, silent


def _tell(task: str, done: int, total: int, detail: str = "") -> None:
    print("progress " + json.dumps([task, done, total, detail]), file=sys.stderr, flush=True)


def _progress() -> Progress:
    """Whoever watches this process from outside sets ``EDGETL_PROGRESS``."""
    return _tell if os.environ.get("EDGETL_PROGRESS") else silent


def _predict(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    from edgetl.runtime.predict import predict

    paths = [Path(line) for line in Path(options.images).read_text(encoding="utf-8").split("\n") if line]
    logits = predict(
        bundle,
        paths,
        role=options.role,
        threads=options.threads,
        simulated=options.simulated,
        progress=_progress(),
    )
    with Path(options.out).open("wb") as stream:
        np.save(stream, logits)
    return {"n": len(paths), "out": options.out}


def _bench(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    from edgetl.runtime.measure import bench

    return bench(bundle, seconds=options.seconds, threads=options.threads or 1, progress=_progress())


def _cold(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    from edgetl.runtime.measure import cold_start
    from edgetl.runtime.predict import read_golden

    images, _ = read_golden(bundle)
    return dict(cold_start(bundle.artifact(options.role), images[0], options.threads or 1))


def _selftest(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    from edgetl.runtime.predict import selftest

    return selftest(bundle, threads=options.threads, simulated=options.simulated)


def _machine() -> dict[str, Any]:
    from edgetl.extras import version
    from edgetl.runtime.machine import machine, state

    modules = {m: m for m in ("numpy", "PIL", "onnxruntime", "openvino", "tensorrt")} | {"litert": "ai_edge_litert"}
    return {
        **machine(),
        **state(),
        "python": sys.version.split()[0],
        "packages": {name: version(module) for name, module in modules.items()},
    }


_VERBS = {"predict": _predict, "bench": _bench, "cold": _cold, "selftest": _selftest}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edgetl.runtime", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("machine", help="facts about this machine")
    for name in _VERBS:
        verb = verbs.add_parser(name)
        verb.add_argument("bundle")
        verb.add_argument("--role", default="deployed", choices=("deployed", "float"))
        verb.add_argument("--threads", type=int)
        verb.add_argument("--simulated", action="store_true")
        if name == "predict":
            verb.add_argument("--images", required=True, help="a file with one image path a line")
            verb.add_argument("--out", required=True, help="where the logits go (.npy, float32, n x classes)")
        if name == "bench":
            verb.add_argument("--seconds", type=float, default=5.0)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status (0, or 2 for bad input)."""
    options = _parse(arguments)
    try:
        answer = _machine() if options.verb == "machine" else _VERBS[options.verb](load_bundle(options.bundle), options)
    except EdgetlError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: cannot use {error.filename or 'a file'} ({error.strerror})", file=sys.stderr)
        return EdgetlError.exit_status
    print(json.dumps(answer, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
