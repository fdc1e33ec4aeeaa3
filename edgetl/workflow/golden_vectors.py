"""The golden vectors of a new bundle: a few samples that nothing is certified on, and a made-up file to be read."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgetl.base.errors import DataError
from edgetl.core.bundle import GOLDEN, Artifact
from edgetl.core.run import Run
from edgetl.core.tensors import Arrays, count, joined, rows
from edgetl.inputs import Input, Preprocess, Tensors, Text, input_of
from edgetl.runtime.predict import infer
from edgetl.runtime.selftest import golden
from edgetl.runtime.sessions import open_session
from edgetl.tasks import find_task

SAMPLES = 4
_SENTENCE = "The quick brown fox, 42 years old, jumps over 3 lazy dogs; good or bad, it is a very long way home.\n"


def write_golden(folder: Path, run: Run, artifact: Artifact, *, simulated: bool) -> None:
    """Write ``golden.npz`` for an artifact.

    Args:
        folder: of the bundle.
        run: whose samples are taken, of the search split where there is one, and whose task and classes name answers.
        artifact: that gives the outputs, here.
        simulated: see :func:`edgetl.runtime.sessions.open_session`.
    """
    held = run.dataset.paths("search") or run.dataset.paths("val")
    # Samples of different lengths are padded to one, so that they stand in one array.
    batch = input_of(run).batch(held[:: max(1, len(held) // SAMPLES)][:SAMPLES])
    with closing(open_session(artifact, threads=1, simulated=simulated)) as session:
        outputs = joined([infer(session, rows(batch, slice(row, row + 1))) for row in range(count(batch))])
    vectors = golden((find_task(run.task), run.classes), batch, outputs, _probe(input_of(run)))
    np.savez(folder / GOLDEN, **vectors, executed=np.array("simulated" if simulated else "host"))


def _probe(definition: Input) -> tuple[str, bytes, Arrays] | None:
    """Ending, bytes and inputs of a file that tells whether a machine reads files alike; nobody's own sample."""
    made = _made_up(definition)
    if made is None:
        return None
    suffix, content = made
    with TemporaryDirectory(prefix="edgetl-probe-") as folder:
        file = Path(folder) / f"probe{suffix}"
        file.write_bytes(content)
        try:
            return suffix, content, definition.feeds(file)
        except DataError:  # such as a tokenizer of another script, that knows none of these words
            return None


def _made_up(definition: Input) -> tuple[str, bytes] | None:
    if isinstance(definition, Preprocess):
        return ".jpg", _picture()
    if isinstance(definition, Text):
        return ".txt", _SENTENCE.encode()
    if isinstance(definition, Tensors):
        draw, stream = np.random.default_rng(0), io.BytesIO()
        arrays = {spec.name: draw.normal(0, 1, spec.shape).astype(np.float32) for spec in definition.arrays}
        np.savez(stream, **arrays)  # type: ignore[arg-type]
        return ".npz", stream.getvalue()
    return None


def _picture() -> bytes:
    """A JPEG of small patches of any colour: their edges show each step of reading, and their places the crop."""
    from PIL import Image

    patches = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    pixels = patches.repeat(9, axis=0).repeat(9, axis=1)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()
