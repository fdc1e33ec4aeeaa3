"""What travels in the wheel, and that it is found there."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgetl.core.targets import load_targets
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a freshly built wheel."""
    pytest.importorskip("hatchling", reason="hatchling (edgetl[dev]) builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_targets_and_recipes_are_found_in_a_wheel(unpacked: Path) -> None:
    code = (
        "import json, edgetl, edgetl.core.targets, edgetl.base.resources;"
        "r = edgetl.base.resources.resource('calibration') / 'recipes';"
        "names = sorted(f.stem for f in r.iterdir());"
        "print(json.dumps([edgetl.__file__, sorted(edgetl.core.targets.load_targets()), names]))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=unpacked.parent,
        env={"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    file, targets, recipes = json.loads(done.stdout)
    assert Path(file).is_relative_to(unpacked)
    assert targets == sorted(load_targets())
    assert {"ort-x86-int8", "ort-aarch64-int8", "openvino-int8", "tensorrt-int8"} <= set(recipes)


def test_the_wheel_holds_the_page_template_and_the_type_marker(unpacked: Path) -> None:
    names = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*")}
    assert {"edgetl/reporting/templates/report.html.j2", "edgetl/py.typed", "edgetl/runtime/build_engine.py"} <= names
    assert {f"edgetl/devices/remote/{name}.sh" for name in ("connect", "greet", "run")} <= names
    assert {f"edgetl/reporting/kit/sources/{name}" for name in ("CMakeLists.txt", "picture.c.in", "ros.cpp")} <= names
    assert {f"edgetl/_data/runner/{name}" for name in ("CMakeLists.txt", "include/edgetl.h", "LICENSE")} <= names
    assert {"edgetl/backends/build_engine.sh", "edgetl/_data/targets/tensorrt/10.3.toml"} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]


def test_constraints_are_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or line.count("==") == 1
        assert "/" not in line
        assert "@" not in line
