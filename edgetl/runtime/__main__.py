"""The device's end of edgetl: ``python -m edgetl.runtime VERB BUNDLE …`` prints one JSON object.

Works with numpy, Pillow or a tokenizer, and one runtime installed, and nothing else of edgetl's dependencies.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import version
from edgetl.base.memory import shortage
from edgetl.base.progress import Progress, silent
from edgetl.base.schema import to_json
from edgetl.base.storage import sha256_file, sha256_json
from edgetl.base.wording import printable
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.runtime.enrolment import Enrolment, check_new, enroll, forget
from edgetl.runtime.installed import InCharge, Installed, SelfTest
from edgetl.runtime.inventory import inventory
from edgetl.runtime.machine import machine
from edgetl.runtime.measure import bench, cold_start, golden_feeds
from edgetl.runtime.measurement import Cold, Measurement
from edgetl.runtime.plan import add_options, plan_of
from edgetl.runtime.predict import HEADS, predict
from edgetl.runtime.releases import in_charge, install, rollback
from edgetl.runtime.selftest import selftest
from edgetl.runtime.sensors import state
from edgetl.runtime.transport import write_arrays


def _report(task: str, done: int, total: int, detail: str = "") -> None:
    print("progress " + json.dumps([task, done, total, detail]), file=sys.stderr, flush=True)


def _progress() -> Progress:
    """Whoever watches this process from outside sets ``EDGETL_PROGRESS``."""
    return _report if os.environ.get("EDGETL_PROGRESS") else silent


def _listed(options: argparse.Namespace) -> list[Path]:
    return [Path(line) for line in Path(options.samples).read_text(encoding="utf-8").split("\n") if line]


def _predict(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    paths = _listed(options)
    outputs = predict(
        bundle,
        paths,
        role=options.role,
        threads=options.threads,
        simulated=options.simulated,
        head=options.head,
        progress=_progress(),
    )
    with Path(options.out).open("wb") as stream:
        write_arrays(stream, outputs)
    return {"n": len(paths), "out": options.out}


def _bench(bundle: Bundle, options: argparse.Namespace) -> Measurement:
    return bench(bundle, plan_of(options), progress=_progress())


def _cold(bundle: Bundle, options: argparse.Namespace) -> Cold:
    return cold_start(bundle.artifact(options.role), golden_feeds(bundle, options.role)[0], options.threads or 1)


def _selftest(bundle: Bundle, options: argparse.Namespace) -> SelfTest:
    return selftest(bundle, threads=options.threads, simulated=options.simulated)


def _install(bundle: Bundle, options: argparse.Namespace) -> Installed:
    return install(bundle, options.name or bundle.target, threads=options.threads)


def _current(options: argparse.Namespace) -> InCharge:
    """What is in charge here, once it has answered the samples that are named."""
    found = in_charge(options.name, options.public_key)
    if found is None:
        return InCharge()
    release, bundle = found
    n = int(_predict(bundle, options)["n"]) if options.samples else 0
    names = sha256_json(list(bundle.labels))
    return InCharge(release, bundle.digest, bundle.manifest.task, len(bundle.labels), names, n)


def _enroll(bundle: Bundle, options: argparse.Namespace) -> Enrolment:
    check_new(bundle, options.name)
    paths = _listed(options)
    (features,) = predict(
        bundle, paths, threads=options.threads, simulated=options.simulated, head="features", progress=_progress()
    ).values()
    pictures = [sha256_file(path) for path in paths]
    return enroll(bundle, options.name, features, pictures, "simulated" if options.simulated else "device")


def _forget(bundle: Bundle, options: argparse.Namespace) -> Enrolment:
    return forget(bundle, options.name)


def _rollback(options: argparse.Namespace) -> Installed:
    return rollback(options.name, threads=options.threads, public_key=options.public_key)


def _follow_caller() -> None:
    """Whoever starts this from afar can have it in a process group of its own, and ended wherever it hangs."""
    if os.environ.pop("EDGETL_GROUP", ""):
        with contextlib.suppress(OSError, AttributeError):
            os.setpgid(0, 0)
    if scratch := os.environ.pop("EDGETL_SCRATCH", ""):
        threading.Thread(target=_end_with_caller, args=(scratch.split("\n"),), daemon=True).start()
    seconds = os.environ.get("EDGETL_DEADLINE")
    # Windows has no such clock: whoever calls there waits.
    if seconds and hasattr(signal, "alarm"):
        signal.alarm(int(seconds))


def _end_with_caller(scratch: Sequence[str]) -> None:
    """Wait until nobody holds the other end of standard input; then remove the folders and end the whole group."""
    while os.read(0, 1 << 16):  # not sys.stdin, whose lock would hang the interpreter's end
        continue
    unfinished = Path(os.environ.get("EDGETL_LEFTOVERS", ""))
    releases = unfinished.read_text(encoding="utf-8").splitlines() if unfinished.is_file() else []
    for folder in (*releases, *scratch):
        shutil.rmtree(folder, ignore_errors=True)
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _machine() -> dict[str, Any]:
    alike = ("numpy", "PIL", "tokenizers", "onnxruntime", "openvino", "tensorrt")
    modules = {**dict(zip(alike, alike, strict=True)), "litert": "ai_edge_litert"}
    return {
        **machine(),
        **state(),
        **inventory(),
        "python": sys.version.split()[0],
        "packages": {name: version(module) for name, module in modules.items()},
    }


_VERBS: Mapping[str, Callable[[Bundle, argparse.Namespace], Any]] = {
    "predict": _predict,
    "bench": _bench,
    "cold": _cold,
    "selftest": _selftest,
    "install": _install,
    "enroll": _enroll,
    "forget": _forget,
}


_KEY = "that must have signed the bundle: a file, or 64 hexadecimal digits"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edgetl.runtime", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("machine", help="facts about this machine")
    back = verbs.add_parser("rollback", help="put the previous release in charge again")
    back.add_argument("--name", required=True)
    back.add_argument("--threads", type=int)
    back.add_argument("--public-key", help=_KEY)
    charge = verbs.add_parser("current", help="what is in charge here, and its answers")
    charge.add_argument("--name", required=True)
    charge.add_argument("--threads", type=int)
    charge.add_argument("--public-key", help=_KEY)
    charge.add_argument("--samples", help="a file with one path of a sample a line")
    charge.add_argument("--out", help="where the outputs go (.npz, each by its name)")
    charge.set_defaults(role="deployed", simulated=False, head="certified")
    for name in _VERBS:
        verb = verbs.add_parser(name)
        verb.add_argument("bundle")
        verb.add_argument("--role", default="deployed", choices=("deployed", "float", "against"))
        verb.add_argument("--threads", type=int)
        verb.add_argument("--simulated", action="store_true")
        verb.add_argument("--public-key", help=_KEY)
        if name in ("predict", "enroll"):
            verb.add_argument("--samples", required=True, help="a file with one path of a sample a line")
        if name in ("enroll", "forget"):
            verb.add_argument("--class", dest="name", required=True, help="its name")
        if name == "predict":
            verb.add_argument("--out", required=True, help="where the outputs go (.npz, each by its name)")
            verb.add_argument("--head", default="certified", choices=HEADS, help="what its head is, or is given")
        if name == "install":
            verb.add_argument("--name", help="what it is called here; its target's name by default")
        if name == "bench":
            add_options(verb)
    return parser.parse_args(arguments)


def _answer(options: argparse.Namespace) -> Any:
    if options.verb == "machine":
        return _machine()
    if options.verb == "rollback":
        return _rollback(options)
    if options.verb == "current":
        return _current(options)
    return _VERBS[options.verb](load_bundle(options.bundle, options.public_key), options)


def _refused(error: EdgetlError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_status


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status (0, or 2 for bad input)."""
    options = _parse(arguments)
    try:
        with warnings.catch_warnings():
            # numpy's of a file's odd numbers, a decoder's of its odd tags: what matters of them is in the answer.
            warnings.simplefilter("ignore")
            answer = _answer(options)
    except EdgetlError as error:
        return _refused(error)
    except OSError as error:
        print(printable(f"error: cannot use {error.filename or 'a file'} ({error.strerror})"), file=sys.stderr)
        return EdgetlError.exit_status
    except Exception as error:
        short = shortage(error)
        if short is None:
            raise
        return _refused(short)
    print(json.dumps(to_json(answer), sort_keys=True))
    return 0


if __name__ == "__main__":
    _follow_caller()
    sys.exit(main())
