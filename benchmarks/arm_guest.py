"""One artifact in a process of its own, also under an emulator: its logits, or marked inferences to be counted.

    python arm_guest.py ARTIFACT BACKEND PRECISION IMAGES.npy OUT.npz CALLS

With CALLS = 0 it writes the logits of every image and what the runtime executed. Otherwise it runs so many inferences
of the first image, each between two calls of getpriority(2), which ``instructions/count.c`` sees. Imports what a
device has: numpy and one runtime.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from edgetl.core.bundle import Artifact
from edgetl.runtime.sessions import open_session

#: Kernels are chosen, packed and jitted in the first inferences.
WARMUP = 2


def main() -> None:
    """Run, and write one file."""
    path, backend, precision, images, out, calls = sys.argv[1:]
    session = open_session(Artifact(backend, Path(path), precision, "CPU" if backend == "openvino" else ""), threads=1)
    stored = np.load(images, mmap_mode="r")
    if int(calls):
        feeds = {session.inputs[0].name: np.ascontiguousarray(stored[:1])}
        for _ in range(WARMUP):
            session.run(feeds)
        for _ in range(int(calls)):
            os.getpriority(os.PRIO_PROCESS, 0)
            session.run(feeds)
            os.getpriority(os.PRIO_PROCESS, 0)
        return
    feeds_of = ({session.inputs[0].name: np.ascontiguousarray(image[None])} for image in stored)
    logits = np.concatenate([session.run(feeds)["logits"] for feeds in feeds_of])
    with Path(out).open("wb") as stream:
        np.savez(stream, logits=logits, executed=np.array(json.dumps(vars(session.executed()))))


if __name__ == "__main__":
    main()
