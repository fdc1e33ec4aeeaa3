"""Every error is one line that says what was wrong and what to do, and an unknown name offers the near ones."""

from __future__ import annotations

import inspect
import sys
import types

import pytest

from edgetl.base import errors
from edgetl.base.errors import EdgetlError, MissingExtraError, UnknownNameError
from edgetl.base.extras import PROVIDERS, available, require, version

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, EdgetlError) and value is not UnknownNameError
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_messages_are_one_line(kind: type[EdgetlError]) -> None:
    error = kind("first\nsecond \r\n third\u2028fourth", "do\tthis\nnow")
    assert str(error) == "first second third fourth: do this now"
    assert (error.what, error.remedy) == ("first second third fourth", "do this now")
    assert str(kind("alone")) == "alone"
    assert error.exit_status == (3 if kind is errors.NotReproducedError else 2)
    assert isinstance(error, EdgetlError)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("jetsn", "jetson"),
        ("rpi", "rpi4"),
        ("Intel-CPU", "intel-cpu"),
        ("cpu", "intel-cpu"),
    ],
)
def test_near_names_are_offered(name: str, near: str) -> None:
    error = UnknownNameError("target", name, ["jetson", "rpi4", "rpi5", "intel-cpu"], "edgetl targets")
    assert near in error.near
    assert f"unknown target '{name}'" in str(error)
    assert near in str(error)
    assert "edgetl targets lists them all" in str(error)


def test_without_near_names_all_are_listed() -> None:
    text = str(UnknownNameError("strategy", "zzz", ["linear-probe", "fine-tune"]))
    assert "fine-tune, linear-probe" in text
    many = str(UnknownNameError("backbone", "zzz", [f"model{i:03d}" for i in range(500)]))
    assert len(many) < 300
    assert "\n" not in str(UnknownNameError("target", "a\nb", ["x"]))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "no_such_package", ("no-such-package", "train"))
    assert not available("no_such_package")
    assert version("no_such_package") is None
    with pytest.raises(MissingExtraError, match=r"training needs.*no-such-package.*edgetl\[train\]"):
        require("no_such_package.inner", "training")


def test_a_package_whose_own_needs_are_missing_is_no_missing_extra(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "half_installed.py").write_text("import not_there_either")
    (folder / "broken.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ModuleNotFoundError, match="not_there_either"):
        require("half_installed", "training")
    with pytest.raises(MissingExtraError, match=r"cannot be loaded.*libcudart"):
        require("broken", "training")


def test_what_is_there_is_imported() -> None:
    assert require("numpy", "anything") is sys.modules["numpy"]
    assert isinstance(require("json", "anything"), types.ModuleType)
    assert available("numpy")
    assert version("PIL") == version("pillow")
