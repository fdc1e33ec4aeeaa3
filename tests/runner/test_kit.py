"""What a bundle's kit prints compiles and runs as it is printed, and answers as Python does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import edgetl
from edgetl.core.bundle import Bundle, load_bundle
from tests.reporting.kits import blocks, equipped
from tests.runner import ugly
from tests.runner.built import SOURCE, Runner, need, packages
from tests.runner.test_answers import LABELS, colour_bundle
from tests.runtime.tiny import tensor_bundle

#: Commands of the page that would install something, or ask the network.
_ELSEWHERE = ("sudo ", "python3 -m venv ", "runtime/bin/pip ", "sh ")
_MESSAGE = """
#pragma once
#include <cstdint>
#include <string>
#include <vector>
namespace sensor_msgs::msg {
struct Image {
  std::uint32_t height, width;
  std::string encoding;
  std::uint8_t is_bigendian;
  std::uint32_t step;
  std::vector<std::uint8_t> data;
};
}  // namespace sensor_msgs::msg
"""


def test_from_the_bundle_to_the_first_label(ort: Runner, shared: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Every command of the page's first block but those that install: the runner is built from the bundle alone."""
    shutil.copytree(tiny_bundle, tmp_path / "x86-generic")
    (tmp_path / "photo.jpg").write_bytes(ugly.saved(ugly.noise(60, 50), "JPEG"))
    (tmp_path / "headers").symlink_to(packages("header", shared / "header") or "/")
    site = tmp_path / "runtime/lib/python3.0/site-packages"
    site.parent.mkdir(parents=True)
    site.symlink_to(sysconfig.get_path("purelib"))
    commands = blocks(tmp_path / "x86-generic", "sh")[0].splitlines()
    assert len(commands) <= 10
    environment = {**os.environ, "CMAKE_BUILD_TYPE": "Debug", "CMAKE_BUILD_PARALLEL_LEVEL": "2"}
    said = ""
    for command in commands:
        if not command.startswith(_ELSEWHERE):
            words = ["bash", "-c", command]
            done = subprocess.run(
                words, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment, timeout=600
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"
            said = done.stdout
    wanted = edgetl.load_bundle(tmp_path / "x86-generic").predict(tmp_path / "photo.jpg").label
    assert said.split()[0] == wanted
    again = re.sub("build/example", "build/example-cpp", commands[-1])
    done = subprocess.run(["bash", "-c", again], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == wanted
    load_bundle(tmp_path / "x86-generic")


def compiled(runner: Runner, source: Path, *flags: str) -> Path:
    """An example, compiled with every warning an error and linked to the library that is there."""
    need("cc", "c++")
    program = source.with_name(f"program{source.suffix}")
    compiler = ["cc", "-std=c11"] if source.suffix == ".c" else ["c++", "-std=c++17"]
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]
    library = ["-L", str(runner.folder), f"-Wl,-rpath,{runner.folder}", "-ledgetl"]
    include = ["-I", str(SOURCE / "include")]
    command = [*compiler, *warnings, *include, str(source), "-o", str(program), *library, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def printed(runner: Runner, bundle: Bundle, name: str, *arguments: object) -> str:
    """What an example of a bundle's kit prints; each is as the page prints it."""
    source = bundle.path / "kit" / name
    language = {".c": "c", ".cpp": "cpp"}[source.suffix]
    assert source.read_text() in blocks(bundle.path, language)
    program = compiled(runner, Path(shutil.copy(source, bundle.path.parent)))
    command = [str(word) for word in (program, bundle.path, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression", "several"])
@pytest.mark.parametrize("name", ["example.c", "example.cpp"])
def test_each_task(ort: Runner, ort_library: Path, tmp_path: Path, name: str, task: str) -> None:
    if task == "several":
        names = ("tree: ash", "tree: fir", "tree: oak", "seen: dog", "seen: cat")
        outputs = {"tree": 3, "age": 1, "seen": 2}
        made = colour_bundle(tmp_path / "bundle", "tree:classification+age:regression+seen:multi-label", outputs, names)
    else:
        names = () if task == "regression" else LABELS
        made = colour_bundle(tmp_path / "bundle", task, {"logits" if names else "values": len(names) or 1}, names)
    bundle = equipped(made)
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(ugly.saved(ugly.noise(60, 50), "JPEG"))
    lines = printed(ort, bundle, name, picture, ort_library).splitlines()
    assert [" ".join(line.split()[:-1]) for line in lines] == said(edgetl.load_bundle(bundle.path).predict(picture))
    (value,) = [line.split()[-1] for line in lines if "age" in line or task == "regression"] or [None]
    if value is not None:
        found = edgetl.load_bundle(bundle.path).predict(picture)
        wanted = found.tasks["age"].value if found.tasks else found.value
        assert float(value) == pytest.approx(wanted, rel=1e-4)


def said(answer: edgetl.Prediction, task: str = "") -> list[str]:
    """What stands before the number in each line of an example."""
    if answer.tasks:
        return [line for name, own in answer.tasks.items() for line in said(own, f"{name}: ")]
    if answer.value is not None:
        return [task.strip()]
    return [f"{task}{one.label}" for one in answer.labels]


@pytest.mark.parametrize("name", ["example.c", "example.cpp"])
def test_arrays(ort: Runner, ort_library: Path, tmp_path: Path, name: str) -> None:
    bundle = equipped(tensor_bundle(tmp_path / "bundle", "classification"))
    left, right = np.arange(4, dtype=np.float32), np.array([1, 2, 3], np.float64)
    np.savez(tmp_path / "sample.npz", right=right, left=left)
    program = next(block for block in blocks(bundle.path, "python") if "tofile" in block)
    subprocess.run([sysconfig.sys.executable, "-c", program], cwd=tmp_path, check=True)
    answer = printed(ort, bundle, name, tmp_path / "0.f32", tmp_path / "1.f32", ort_library)
    assert answer.split()[0] == edgetl.load_bundle(bundle.path).predict(tmp_path / "sample.npz").label == "up"


def test_names_that_would_end_a_string(ort: Runner, ort_library: Path, tmp_path: Path) -> None:
    """A network whose input is called so is no ONNX file that a runtime takes; its kit compiles all the same."""
    evil = 'a"); system("touch owned"); ("\\', "??/\n*/ b", "é\u202e"
    bundle = equipped(tensor_bundle(tmp_path / "bundle"), arrays=evil)
    for name in ("example.c", "example.cpp"):
        program = compiled(ort, bundle.path / "kit" / name)
        done = subprocess.run([program], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
    assert not (tmp_path / "owned").exists()


def test_gstreamer(ort: Runner, ort_library: Path, tmp_path: Path) -> None:
    need("pkg-config")
    command = ["pkg-config", "--cflags", "--libs", "gstreamer-app-1.0", "gstreamer-video-1.0"]
    flags = subprocess.run(command, capture_output=True, text=True, check=False)
    if flags.returncode:
        pytest.skip("GStreamer's headers are not here: apt-get install libgstreamer-plugins-base1.0-dev")
    bundle = equipped(colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS))
    wide = [flag.replace("-I", "-isystem", 1) if flag.startswith("-I") else flag for flag in flags.stdout.split()]
    program = compiled(ort, bundle.path / "kit/gstreamer.c", *wide)
    done = subprocess.run([program, bundle.path, ort_library], capture_output=True, text=True, check=False)
    if "videotestsrc" in done.stderr:
        pytest.skip("GStreamer's elements are not here: apt-get install gstreamer1.0-plugins-base")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 30
    assert {line.split()[0] for line in done.stdout.splitlines()} <= set(LABELS)
    wrong = "videotestsrc num-buffers=3 ! video/x-raw,format=GRAY8 ! appsink name=frames"
    done = subprocess.run([program, bundle.path, ort_library, wrong], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (5, "what arrives is no RGB frame\n")


def test_ros_compiles_against_its_message(runner: Runner, tmp_path: Path) -> None:
    bundle = equipped(colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS))
    (tmp_path / "sensor_msgs/msg").mkdir(parents=True)
    (tmp_path / "sensor_msgs/msg/image.hpp").write_text(_MESSAGE)
    (tmp_path / "node.cpp").write_text(next(block for block in blocks(bundle.path, "cpp") if "sensor_msgs" in block))
    strict = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-missing-declarations", "-c"]
    folders = ["-I", str(tmp_path), "-I", str(SOURCE / "include")]
    command = [*strict, *folders, str(tmp_path / "node.cpp"), "-o", str(tmp_path / "node.o")]
    subprocess.run(command, check=True)
