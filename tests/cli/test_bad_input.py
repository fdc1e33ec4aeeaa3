"""Bad input ends in one clear line and exit status 2, with nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import paint

Cli = Callable[..., subprocess.CompletedProcess[str]]
TINY = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--epochs", "1")


def refused(done: subprocess.CompletedProcess[str], *mentions: str) -> str:
    """Exit status 2, nothing on standard output, one line that starts with ``error:`` and mentions what matters."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0]
    assert "Traceback" not in done.stderr
    for mention in mentions:
        assert mention in lines[0]
    return lines[0]


def test_missing_folder(here: Cli, tmp_path: Path) -> None:
    refused(here("finetune", tmp_path / "nowhere", "--out", tmp_path / "run"), "nowhere", "folder for each class")
    assert not (tmp_path / "run").exists()


def test_empty_class(here: Cli, photos: Path, tmp_path: Path) -> None:
    (photos / "empty").mkdir()
    refused(here("finetune", photos, "--out", tmp_path / "run", *TINY), "empty", "add samples or remove the folder")


def test_one_class_only(here: Cli, photos: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos / "red")
    shutil.rmtree(photos / "green")
    refused(here("finetune", photos, "--out", tmp_path / "run", *TINY), "blue", "at least two")


def test_truncated_jpeg_among_good_ones(here: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    for hue, name in enumerate(("a", "b")):
        for index in range(6):
            paint(folder / name / f"{index}.jpg", hue, index)
    whole = (folder / "a" / "0.jpg").read_bytes()
    (folder / "a" / "0.jpg").write_bytes(whole[: len(whole) // 2])
    refused(here("finetune", folder, "--out", tmp_path / "run", *TINY), "a/0.jpg", "1 of 12", "damaged")


def test_text_file_named_jpg(here: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    for hue, name in enumerate(("a", "b")):
        for index in range(6):
            paint(folder / name / f"{index}.jpg", hue, index)
    (folder / "b" / "notes.jpg").write_text("these are my notes")
    refused(here("finetune", folder, "--out", tmp_path / "run", *TINY), "b/notes.jpg", "not an image")


def test_one_bad_file_among_many_is_named_and_left_out(edgetl: Cli, photos: Path, tmp_path: Path) -> None:
    (photos / "red" / "notes.jpg").write_text("these are my notes")
    done = edgetl("finetune", photos, "--out", tmp_path / "run", "--json", *TINY)
    assert done.returncode == 0, done.stderr
    assert "red/notes.jpg" in done.stderr
    assert [bad["path"] for bad in json.loads(done.stdout)["skipped"]] == ["red/notes.jpg"]


def test_unknown_backbone(here: Cli, photos: Path, tmp_path: Path) -> None:
    done = here("finetune", photos, "--out", tmp_path / "run", "--backbone", "efficientnet_light0")
    refused(done, "efficientnet_light0", "efficientnet_lite0")


def test_unknown_strategy(here: Cli, photos: Path, tmp_path: Path) -> None:
    done = here("finetune", photos, "--out", tmp_path / "run", "--strategy", "finetune")
    refused(done, "finetune", "fine-tune")


def test_unknown_target_offers_near_names(here: Cli, tiny_run: Path, tmp_path: Path) -> None:
    done = here("export", tiny_run, "--target", "jetson-orin-nan", "--out", tmp_path / "out")
    refused(done, "jetson-orin-nan", "jetson-orin-nano")
    assert not (tmp_path / "out").exists()


def test_export_of_no_run(here: Cli, tmp_path: Path) -> None:
    refused(here("export", tmp_path, "--target", "jetson", "--out", tmp_path / "out"), "is not a run")


def test_impossible_margin(here: Cli, tiny_run: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    refused(here("verify", tiny_bundle, "--margin", "-1"), "margin")
    refused(here("export", tiny_run, "--target", "jetson", "--out", tmp_path / "o", "--margin", "-1"), "margin")


def test_precision_that_the_target_lacks(here: Cli, tiny_run: Path, tmp_path: Path) -> None:
    done = here("export", tiny_run, "--target", "x86-generic", "--precision", "fp16", "--out", tmp_path / "out")
    refused(done, "x86-generic", "fp16", "int8")


@pytest.mark.parametrize("name", ["manifest.json", "model", "golden.npz", "reference.npz", "certificate.json"])
def test_bundle_with_one_byte_flipped(here: Cli, tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    file = next(f for f in sorted((copy / name).rglob("*")) if f.is_file()) if name == "model" else copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for verb in ("verify", "bench"):
        refused(here(verb, copy), file.name)
    refused(here("report", copy, "--out", tmp_path / "page.html"), file.name)
    assert not (tmp_path / "page.html").exists()
    checked = here("verify", copy, "--check")
    assert checked.returncode == 3
    assert file.name in checked.stdout


def test_read_only_output_folder(here: Cli, tiny_run: Path, photos: Path) -> None:
    # Root ignores permission bits; /proc refuses everyone.
    refused(here("export", tiny_run, "--target", "x86-generic", "--out", "/proc/out"), "/proc/out", "--out")
    refused(here("finetune", photos, "--out", "/proc/run", *TINY), "/proc/run", "--out")


def test_a_file_where_the_output_folder_should_be(here: Cli, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    refused(here("export", tiny_run, "--target", "x86-generic", "--out", tmp_path / "out"), str(tmp_path / "out"))


def test_bundle_that_is_only_simulated_has_no_latency(edgetl: Cli, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = edgetl("export", tiny_run, "--target", "rpi5", "--precision", "fp32", "--out", out)
    assert made.returncode in (0, 3), made.stderr
    refused(edgetl("bench", out / "rpi5"), "rpi5", "simulated")
    assert not (out / "rpi5" / "bench.json").exists()


def test_usage_errors_are_one_line_too(edgetl: Cli) -> None:
    refused(edgetl("export"), "--help")
    refused(edgetl("exprot"), "exprot")
    refused(edgetl("verify", "x", "--margin", "much"), "--margin", "number")


def test_json_errors_are_json(edgetl: Cli, tmp_path: Path) -> None:
    done = edgetl("bench", tmp_path, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_status"] == 2
    assert "is not a bundle" in json.loads(done.stdout)["error"]
