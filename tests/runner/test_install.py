"""What is installed can be used: from C11 by pkg-config, from C++17 by CMake's find_package, shared and static."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.runner import ugly
from tests.runner.built import Runner, need
from tests.runner.test_answers import LABELS, colour_bundle

_C = """
#include <edgetl.h>
#include <stdio.h>

int main(int count, char **words) {
  etl_answer items[8];
  etl_answers answers = {.size = sizeof answers, .items = items, .capacity = 8, .top = 1};
  etl_options options = {.size = sizeof options, .runtime_library = words[1]};
  etl_model *model;
  if (count < 4 || etl_open(words[2], &options, &model) != ETL_OK) {
    fprintf(stderr, "%s\\n", etl_error(NULL));
    return 1;
  }
  if (etl_run_file(model, words[3], &answers) != ETL_OK) fprintf(stderr, "%s\\n", etl_error(model));
  printf("%s\\n", items[0].label);
  etl_close(model);
  return 0;
}
"""
_CXX = """
#include <edgetl.hpp>
#include <iostream>

int main(int, char **words) {
  try {
    etl_options options{};
    options.runtime_library = words[1];
    edgetl::Model model(words[2], options);
    model.self_test();
    std::cout << model.run_file(words[3], 1).at(0).label << std::endl;
    std::cout << model.run_file(words[3]).size() << std::endl;
    model.run_file("nowhere.jpg");
  } catch (const edgetl::Error &error) {
    std::cout << error.status() << std::endl;
  }
}
"""
_CMAKE = """
cmake_minimum_required(VERSION 3.16)
project(user LANGUAGES C CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(edgetl 0.1 REQUIRED)
add_executable(shared user.cpp)
target_link_libraries(shared PRIVATE edgetl::edgetl)
add_executable(static user.cpp)
target_link_libraries(static PRIVATE edgetl::static)
"""


@pytest.fixture
def asked(ort: Runner, ort_library: Path, tmp_path: Path) -> tuple[list[str], str]:
    """Arguments of a program, and the label that it is to print."""
    bundle = colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS)
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(ugly.saved(ugly.noise(60, 50), "JPEG"))
    (line,) = ort.lines(bundle.path, paths=[picture])
    return [str(ort_library), str(bundle.path), str(picture)], line["answer"]["labels"][0]["label"]


def test_pkg_config_and_c(ort: Runner, asked: tuple[list[str], str], tmp_path: Path) -> None:
    need("pkg-config")
    (pc,) = (ort.folder / "installed").rglob("edgetl.pc")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(pc.parent)}
    command = ["pkg-config", "--cflags", "--libs", "edgetl"]
    flags = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
    (tmp_path / "user.c").write_text(_C)
    strict = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    user = tmp_path / "user"
    subprocess.run(["cc", *strict, str(tmp_path / "user.c"), "-o", str(user), *flags], check=True)
    environment["LD_LIBRARY_PATH"] = str(pc.parents[1])
    done = subprocess.run([str(user), *asked[0]], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == asked[1]


def test_find_package_and_cxx(ort: Runner, asked: tuple[list[str], str], tmp_path: Path) -> None:
    (tmp_path / "user.cpp").write_text(_CXX)
    (tmp_path / "CMakeLists.txt").write_text(_CMAKE)
    configure = ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={ort.folder / 'installed'}"]
    for command in (configure, ["cmake", "--build", tmp_path / "build"]):
        subprocess.run(command, check=True, capture_output=True)
    for kind in ("shared", "static"):
        done = subprocess.run([tmp_path / "build" / kind, *asked[0]], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [asked[1], "4", "5"]


def test_the_library_offers_its_own_functions_alone(runner: Runner) -> None:
    command = ["nm", "-D", "--defined-only", "--format=just-symbols", str(runner.library)]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {"etl_open", "etl_run_rgb", "etl_close"} <= set(names)
    assert not [name for name in names if not name.startswith("etl_")]
