"""Bundles of tiny networks, and the command line that serves them in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgetl.core.bundle import Artifact, Bundle
from tests.conftest import ROOT, paint
from tests.runtime import tiny

pytest.importorskip("starlette", reason="edgetl[serve] serves")


@dataclass(frozen=True)
class Served:
    """A server that runs, and what it said."""

    process: subprocess.Popen[str]
    host: str
    port: int
    models: dict[str, str]
    errors: Path

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers in lower case, body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked=body is not None and iterates(body))
            found = connection.getresponse()
            return found.status, {name.lower(): value for name, value in found.getheaders()}, found.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The value that a request is answered with, whatever its status."""
        return json.loads(self.ask(method, path, body, headers)[2])


def iterates(body: Any) -> bool:
    return not isinstance(body, bytes | str)


@contextmanager
def serving(*arguments: object) -> Iterator[Served]:
    """``edgetl serve ARGUMENTS`` on a free port; ended by SIGTERM, if it still runs."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        command = [sys.executable, "-m", "edgetl", "serve", *map(str, arguments), "--port", "0", "--json"]
        with errors.open("w") as stream:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stream, text=True, cwd=ROOT, env={**os.environ}
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith('{"host"'), line + errors.read_text()
            told = json.loads(line)
            yield Served(process, told["host"], told["port"], told["models"], errors)
        finally:
            process.terminate()
            process.communicate(timeout=60)


def image_bundle(folder: Path, seed: int = 0, *, wrong: bool = False) -> Bundle:
    """The tiny network for images; ``wrong``: its golden vectors are another's."""
    file = folder / "model" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(tiny.model(seed=seed).SerializeToString())
    images = tiny.pictures(4, seed=9)
    logits = answers(file, images)
    return tiny.seal(folder, Artifact("onnxruntime", file, "fp32"), golden=(images, logits[::-1] if wrong else logits))


def answers(file: Path, images: np.ndarray) -> Any:
    """What the network of an ONNX file answers: uint8 (n, 32, 24, 3) → float32 (n, 4)."""
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """One for images, one for texts, one for arrays of two inputs."""
    folder = tmp_path_factory.mktemp("served")
    return {
        "pictures": image_bundle(folder / "pictures"),
        "texts": tiny.text_bundle(folder / "texts"),
        "arrays": tiny.tensor_bundle(folder / "arrays", "multi-label"),
    }


@pytest.fixture(scope="session")
def served(bundles: dict[str, Bundle]) -> Iterator[Served]:
    """All of them behind one server, whose requests have at most 1 MiB and 8 samples."""
    paths = [bundle.path for bundle in bundles.values()]
    with serving(*paths, "--max-body", "1", "--max-batch", "8", "--queue", "4") as server:
        yield server


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG that is no square."""
    file = tmp_path_factory.mktemp("photos") / "photo.jpg"
    paint(file, 1, 5, (61, 44))
    return file
