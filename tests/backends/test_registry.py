from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgetl.backends import BACKENDS
from edgetl.core.targets import load_targets

HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "tensorrt_rtx")


def test_importing_the_backends_imports_no_runtime() -> None:
    script = f"import json, sys, edgetl.backends; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_target_has_its_backend_and_names_agree() -> None:
    assert {target.backend for target in load_targets().values()} == set(BACKENDS)
    assert all(backend.name == name for name, backend in BACKENDS.items())


def test_each_target_can_be_made_in_its_default_precision() -> None:
    for target in load_targets().values():
        assert BACKENDS[target.backend].refuses(target, target.default_precision) is None
