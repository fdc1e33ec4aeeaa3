"""The tables of what each TensorRT version takes: dated, sourced, whole."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import onnx
import pytest

from edgetl.backends import tensorrt_tables
from edgetl.backends.tensorrt_rules import CHECKS
from edgetl.backends.tensorrt_tables import jetpacks, of_jetpack, parse_version, tables, tables_around
from edgetl.base.errors import BackendError, EdgetlError, UnknownNameError
from edgetl.base.resources import resource
from edgetl.core.targets import load_targets


def test_every_table_is_dated_sourced_and_whole() -> None:
    assert list(tables()) == [(8, 6), (10, 3), (10, 15), (11, 1)]
    for table in tables().values():
        assert datetime.date(2023, 1, 1) < table.date < datetime.date(2027, 1, 1)
        assert table.sources
        assert all(source.url.startswith("https://") for source in table.sources)
        assert len(table.operators) > 170
        assert {rule.check for rule in table.rules} <= set(CHECKS)
        # Names are ONNX's own, or of operators that ONNX had once.
        known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
        assert set(table.operators) - known <= {"ParametricSoftplus", "ScaledTanh", "ImageScaler"}


def test_targets_and_jetpacks_agree() -> None:
    known = {release.system: release.tensorrt for release in jetpacks()}
    for target in load_targets().values():
        if target.backend == "tensorrt":
            for runtime in target.runtimes:
                assert known[runtime.system] == runtime.version
    assert of_jetpack("6.0") == "8.6.2"
    with pytest.raises(UnknownNameError, match="unknown JetPack '9'"):
        of_jetpack("9")


@pytest.mark.parametrize("text", ["", "ten", "10", "10.x"])
def test_versions_that_are_none(text: str) -> None:
    with pytest.raises(BackendError, match="is no TensorRT version"):
        parse_version(text)


def test_neighbours() -> None:
    def names(version: tuple[int, int]) -> list[str | None]:
        return [table and table.name for table in tables_around(version)]

    assert names((10, 3)) == ["10.3", "10.3"]
    assert names((10, 7)) == ["10.3", "10.15"]
    assert names((10, 16)) == ["10.15", "11.1"]
    assert names((11, 4)) == ["11.1", None]
    assert names((8, 5)) == [None, "8.6"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("opset_max = 20\n", "", "key 'opset_max'"),
        ('version = "10.3"', 'version = "10.4"', "call it 10.4.toml"),
        ('names = "Gelu"', 'names = "Gelu Relu"', "Relu is an unknown type or named twice"),
        ('types = "BOOL"', 'types = "BOOLEAN"', "BOOLEAN is an unknown type"),
        ('operators = "GridSample"', 'operators = "Det"', "a rule is about Det"),
        ("[[sources]]", "[[sources", "cannot read"),
    ],
)
def test_malformed_tables_end_in_one_line(old: str, new: str, complaint: str, tmp_path: Path) -> None:
    shutil.copytree(resource("targets") / "tensorrt", tmp_path / "tensorrt")
    file = tmp_path / "tensorrt" / "10.3.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(EdgetlError, match=complaint):
        tensorrt_tables._load(tmp_path / "tensorrt")
