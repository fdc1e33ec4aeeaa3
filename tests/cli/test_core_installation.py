"""Without the extras, commands and functions work or say in one line which extra they lack.

What runs on this machine as a device has a process, and so an installation, of its own.
"""

from __future__ import annotations

import json
import shutil

import pytest

from tests.cores import ROOT, in_core

EVERYTHING = """
import contextlib, io, json
import edgetl
from edgetl.cli import run

photos, bundle, out = sys.argv[1:]
commands = {
    "demo": ["demo", "--out", out],
    "finetune": ["finetune", photos, "--out", out],
    "finetune digits": ["finetune", "digits", "--out", out],
    "verify": ["verify", bundle],
    "verify --check": ["verify", bundle, "--check"],
    "sign": ["sign", bundle, "--key", photos],
    "pack": ["pack", bundle, "--out", out + ".zip"],
    "unpack": ["unpack", out + ".zip", "--out", out + "-unpacked"],
    "report": ["report", bundle, "--out", out],
    "serve": ["serve", bundle, "--port", "0"],
    "targets": ["targets"],
    "targets check": ["targets", "check", bundle],
    "backbones": ["backbones"],
    "backbones PATTERN": ["backbones", "resnet*"],
    "strategies": ["strategies"],
    "tasks": ["tasks"],
    "rank": ["rank", photos],
    "shift": ["shift", photos, photos],
    "advise": ["advise", photos],
    "lr-find": ["lr-find", photos],
    "devices": ["devices"],
    "doctor": ["doctor"],
}
told = {}
for name, words in commands.items():
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = run(words)
    told[name] = status, said.getvalue()
calls = {
    "finetune()": lambda: edgetl.finetune(photos, out),
    "predict()": lambda: edgetl.load_bundle(bundle).predict(photos),
    "demo()": lambda: edgetl.demo(out),
    "report()": lambda: edgetl.report(bundle, out),
    "serve()": lambda: edgetl.serve(bundle, port=0),
    "list_backbones()": lambda: edgetl.list_backbones("resnet*"),
    "load_dataset()": lambda: edgetl.load_dataset("digits"),
    "verify()": lambda: edgetl.verify(reference=[0, 1], deployed=[0, 1], labels=[0, 1]),
}
for name, call in calls.items():
    try:
        call()
        told[name] = 0, ""
    except edgetl.EdgetlError as error:
        assert isinstance(error, ImportError), error
        told[name] = error.exit_status, f"error: {error}"
for name in edgetl.__all__:
    with contextlib.suppress(edgetl.EdgetlError):
        getattr(edgetl, name)
print(json.dumps(told), file=sys.__stderr__)
"""
TRAIN, REPORT = "pip install 'edgetl[train]'", "pip install 'edgetl[report]'"
SERVE = "pip install 'edgetl[serve]'"
#: Exit status, and what the line of error ends with.
EXPECTED = {
    "demo": (2, TRAIN),
    "finetune": (2, TRAIN),
    "finetune digits": (2, TRAIN),
    "verify": (4, ""),
    "verify --check": (0, ""),
    "sign": (2, "pip install 'edgetl[sign]'"),
    "pack": (0, ""),
    "unpack": (0, ""),
    "report": (2, REPORT),
    "serve": (2, SERVE),
    "targets": (0, ""),
    "targets check": (2, TRAIN),
    "backbones": (0, ""),
    "backbones PATTERN": (2, TRAIN),
    "strategies": (0, ""),
    "tasks": (0, ""),
    "rank": (2, TRAIN),
    "shift": (2, TRAIN),
    "advise": (2, TRAIN),
    "lr-find": (2, TRAIN),
    "devices": (0, ""),
    "doctor": (0, ""),
    "finetune()": (2, TRAIN),
    "predict()": (2, "pip install 'edgetl[openvino]'"),
    "demo()": (2, TRAIN),
    "report()": (2, REPORT),
    "serve()": (2, SERVE),
    "list_backbones()": (2, TRAIN),
    "load_dataset()": (2, TRAIN),
    "verify()": (0, ""),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit status and standard error of every command and function."""
    folder = tmp_path_factory.mktemp("core")
    bundle = shutil.copytree(ROOT / "tests/golden/bundle", folder / "bundle")
    (folder / "photo").mkdir()
    done = in_core(EVERYTHING, folder / "photo", bundle, folder / "out", home=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (folder / "out").exists(), "nothing was begun"
    found: dict[str, tuple[int, str]] = json.loads(done.stderr.splitlines()[-1])
    return found


def test_everything_is_tried(told: dict[str, tuple[int, str]]) -> None:
    assert set(told) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_it_works_or_says_what_it_lacks(told: dict[str, tuple[int, str]], name: str) -> None:
    status, end = EXPECTED[name]
    said = [line for line in told[name][1].splitlines() if line.startswith("error: ")]
    assert (told[name][0], len(said)) == (status, int(status == 2)), told[name]
    assert all(line.endswith(end) for line in said), said
    assert "Traceback" not in told[name][1]
