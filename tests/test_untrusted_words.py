"""What a bundle, a file or a device is called never steers the terminal that speaks of it; where its maker works stays
unsaid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.base.storage import read_json, sha256_file, write_json, write_sealed
from edgetl.core.bundle import MANIFEST, load_bundle
from edgetl.core.data import Dataset, Sample
from edgetl.workflow.portable import for_certifying, samples_home, without_places

Cli = Callable[..., Any]
#: Clears the screen, renames the window, goes back to the start of the line, turns what follows around.
EVIL = "a\x1b[2J\x1b]0;owned\x07\rb\u202ec\x9b2J"


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle, whose note of where its samples lie stays behind."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def relabel(bundle: Path, names: list[str]) -> None:
    write_json(bundle / "labels.json", names)
    manifest = read_json(bundle / MANIFEST)
    size = (bundle / "labels.json").stat().st_size
    manifest["files"]["labels.json"] = {"sha256": sha256_file(bundle / "labels.json"), "bytes": size}
    write_sealed(bundle / MANIFEST, manifest)
    for name in ("certificate.json", "predictions.npz", "bench.json", "bom.cdx.json"):
        (bundle / name).unlink()


def shown(done: Any) -> str:
    text = done.stdout + done.stderr
    assert all(line.isprintable() for line in text.split("\n")), repr(text)
    return str(text)


def test_errors_hold_nothing_that_a_terminal_obeys() -> None:
    for error in (EdgetlError(EVIL, EVIL), UnknownNameError("target", EVIL, [EVIL + "x"])):
        assert str(error).isprintable()
        assert "2J" in str(error)


def test_names_from_outside_on_the_error_path(bundle: Path, tmp_path: Path, edgetl: Cli) -> None:
    evil = tmp_path / EVIL
    assert edgetl("predict", bundle, evil).returncode == 2
    shown(edgetl("predict", bundle, evil))
    shown(edgetl("verify", evil))
    shown(edgetl("verify", bundle, "--metric", EVIL))
    shown(edgetl("predict", bundle, "--" + EVIL))
    shown(edgetl("bench", bundle, "--device", EVIL))
    shutil.copytree(bundle, evil)
    (evil / "labels.json").write_text("[]")
    assert "altered or damaged" in shown(edgetl("verify", evil))
    assert json.loads(edgetl("verify", evil, "--json").stdout)["exit_status"] == 2


def test_labels_from_outside(bundle: Path, tiny_run: Path, edgetl: Cli) -> None:
    relabel(bundle, [EVIL, EVIL + "[bold red]x[/]", "c"])
    picture = tiny_run.parent / "photos/red/00.png"
    done = edgetl("predict", bundle, picture)
    assert done.returncode == 0, done.stderr
    assert "[bold red]x[/]" in shown(done)


def test_a_device_that_speaks_to_the_terminal(bundle: Path, tmp_path: Path, edgetl: Cli) -> None:
    (tmp_path / "onnxruntime.py").write_text(f"raise ImportError({EVIL!r})\n")
    manifest = read_json(bundle / MANIFEST)
    manifest["target"]["name"] = EVIL
    write_sealed(bundle / MANIFEST, manifest)
    for name in ("certificate.json", "predictions.npz", "bench.json", "bom.cdx.json"):
        (bundle / name).unlink()
    done = edgetl("deploy", bundle, "--device", "local", "--force", XDG_DATA_HOME=str(tmp_path / "data"))
    assert done.returncode == 2
    shown(done)


def test_a_bundle_tells_nothing_of_the_machine_that_made_it(tiny_bundle: Path, tiny_run: Path) -> None:
    """No absolute path; and of the samples, only those that a certificate reads."""
    home = str(tiny_run.parent).encode()
    for file in tiny_bundle.rglob("*"):
        if not file.is_file():
            continue
        assert home not in file.read_bytes(), file
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as stored:
                assert all(home not in stored[name].tobytes() for name in stored.files), file
                assert all(home.decode() not in str(stored[name]) for name in stored.files), file
    record = read_json(tiny_bundle / "splits.json")
    assert {row[4] for row in record["samples"]} == {"calibration", "search", "certify"}
    assert (record["root"], record["skipped"]) == (".", [])
    manifest = read_json(tiny_bundle / MANIFEST)
    assert manifest["run"]["settings"]["data"] == "photos"
    assert manifest["lineage"]["command"].startswith("edgetl finetune photos --out run --task")


def test_its_samples_are_found_where_it_was_made_and_asked_for_elsewhere(
    tiny_bundle: Path, bundle: Path, tiny_run: Path, edgetl: Cli
) -> None:
    assert load_bundle(tiny_bundle).dataset.root == tiny_run.parent / "photos"
    for name in ("certificate.json", "predictions.npz"):
        (bundle / name).unlink()
    lost = edgetl("verify", bundle)
    assert lost.returncode == 2
    assert "say where they are: --data FOLDER" in lost.stderr
    found = edgetl("verify", bundle, "--data", tiny_run.parent / "photos", "--quiet")
    assert found.returncode in (0, 4), found.stderr


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("/home/alice/my photos", "my photos"),
        ("finetune '/home/alice/my photos' --out /data/run --set a=/x/y", "finetune 'my photos' --out run --set a=y"),
        ("C:\\Users\\alice\\photos", "photos"),
        ("~/photos/", "photos"),
        ("https://github.com/a/b", "https://github.com/a/b"),
        ("1/255 and/or x", "1/255 and/or x"),
        ("read from /mnt/a/b.csv, twice", "read from b.csv, twice"),
        ({"a": ["/x/y", 3, None, {"b": "--data=/x/y"}]}, {"a": ["y", 3, None, {"b": "--data=y"}]}),
        ("/", "."),
    ],
)  # fmt: skip
def test_paths_are_cut_down_to_their_last_part(given: Any, left: Any) -> None:
    assert without_places(given) == left


def test_samples_that_a_csv_names_in_full_keep_only_what_they_do_not_share(tmp_path: Path) -> None:
    rows = [Sample(f"/home/alice/data/{i % 2}/{i}.png", i % 2, f"{i:064x}", "p", "certify") for i in range(4)]
    given = Dataset(tmp_path, ("a", "b"), (*rows, Sample("/home/alice/data/x.png", 0, "0" * 64, "p", "train")))
    kept = for_certifying(given)
    assert [sample.path for sample in kept.samples] == ["0/0.png", "1/1.png", "0/2.png", "1/3.png"]
    assert (samples_home(given), str(kept.root)) == (Path("/home/alice/data"), ".")
    numbers = replace(given, classes=(), label_kind="number", samples=(*rows, Sample("y", 1.5, "1" * 64, "p", "train")))
    trained = for_certifying(numbers).split("train")
    assert trained == (Sample("", 1.5, "", "", "train"),), "only their spread is needed"
