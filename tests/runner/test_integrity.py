"""Altered, unsigned and forged bundles are refused before a runtime sees them; golden vectors test a machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetl.base.errors import EdgetlError
from edgetl.base.storage import read_json, write_sealed
from edgetl.core.bundle import Artifact, Bundle, load_bundle, write_manifest
from edgetl.core.manifest import Manifest
from edgetl.core.targets import find_target
from edgetl.workflow.sign_bundle import sign
from tests.runner.built import Runner, pixel_bundle
from tests.runner.test_answers import LABELS, colour_bundle
from tests.runner.test_pixels import definition
from tests.runtime.tiny import seal


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return pixel_bundle(tmp_path / "bundle", definition())


@pytest.fixture
def signed(bundle: Bundle, tmp_path: Path) -> tuple[Path, str]:
    """A signed bundle with a record beside its manifest, and the public key."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization", reason="edgetl[sign] signs")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key").write_bytes(private.private_bytes(*kind))
    write_sealed(bundle.path / "repair.json", {"manifest": bundle.digest})
    return bundle.path, sign(bundle.path, tmp_path / "key")


def opened(runner: Runner, folder: Path, *options: str) -> tuple[int, str]:
    """Exit status and message of opening a bundle without asking it anything."""
    done = runner.run("--pixels", *options, folder)
    return done.returncode, done.stderr


def test_a_sound_bundle_opens(runner: Runner, bundle: Bundle) -> None:
    assert opened(runner, bundle.path) == (0, "")
    status, message = opened(runner, bundle.path / "nowhere")
    assert status == 3
    assert "is not a bundle" in message


def test_every_altered_byte_is_refused_by_both(runner: Runner, bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted(file for file in bundle.path.rglob("*") if file.is_file())
    for index in range(60):
        file = files[index % len(files)]
        content = bytearray(file.read_bytes())
        before = bytes(content)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        assert opened(runner, bundle.path)[0] == 3, file
        with pytest.raises(EdgetlError):
            load_bundle(bundle.path)
        file.write_bytes(before)
    assert opened(runner, bundle.path)[0] == 0


def test_classes_that_were_added_are_not_left_out_silently(runner: Runner, bundle: Bundle) -> None:
    (bundle.path / "enrolled.head").write_bytes(b"")
    status, message = opened(runner, bundle.path)
    assert status != 0
    assert "classes that were added on the device" in message
    (bundle.path / "enrolled.head").unlink()
    assert opened(runner, bundle.path) == (0, "")


def test_an_altered_file_is_named(runner: Runner, bundle: Bundle) -> None:
    (bundle.path / "labels.json").write_text('["two", "one"]\n')
    status, message = opened(runner, bundle.path)
    assert status == 3
    assert "labels.json" in message
    (bundle.path / "labels.json").unlink()
    assert "lacks labels.json" in opened(runner, bundle.path)[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record["files"].update({"../labels.json": record["files"]["labels.json"]}), "leads out"),
        (lambda record: record["files"].update({"/etc/passwd": record["files"]["labels.json"]}), "is absolute"),
        (lambda record: record.update(schema=4), "another schema"),
        (lambda record: record["artifacts"]["deployed"].update(file="model/model.so"), "no .onnx file"),
        (lambda record: record["artifacts"]["deployed"].update(file="other.onnx"), "other.onnx"),
        (lambda record: record.update(artifacts={}), "no deployed artifact"),
        (lambda record: record.update(artifacts=[[[]]]), "no deployed artifact"),
        (lambda record: record.update(task="segmentation"), "segmentation"),
        (lambda record: record.update(task=7), "task"),
        (lambda record: record.update(deep=json.loads("[" * 99 + "]" * 99)), "nested too deep"),
    ],
)
def test_a_manifest_that_was_sealed_again(
    runner: Runner, bundle: Bundle, change: Callable[[dict[str, object]], None], words: str
) -> None:
    record = read_json(bundle.path / "manifest.json")
    change(record)
    write_sealed(bundle.path / "manifest.json", record)
    status, message = opened(runner, bundle.path)
    assert status in (3, 8)
    assert words in message


def test_a_link_is_refused(runner: Runner, bundle: Bundle, tmp_path: Path) -> None:
    shutil.move(bundle.path / "labels.json", tmp_path / "labels.json")
    (bundle.path / "labels.json").symlink_to(tmp_path / "labels.json")
    status, message = opened(runner, bundle.path)
    assert status == 3
    assert "link" in message


def test_a_model_that_names_other_files_is_refused(runner: Runner, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    node = helper.make_node("Add", ["x", "w"], ["logits"])
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "logits"))
    graph = helper.make_graph([node], "g", [given], [made], [tensor])
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    (folder / "model/weights.bin").write_bytes(bytes(16))
    onnx.save(helper.make_model(graph), folder / "model/model.onnx")
    seal(folder, Artifact("onnxruntime", folder / "model/model.onnx", "fp32"))
    status, message = opened(runner, folder)
    assert status == 8
    assert "weights.bin" in message


def test_a_signature(runner: Runner, signed: tuple[Path, str]) -> None:
    folder, key = signed
    assert opened(runner, folder, "--key", key) == (0, "")
    other = ("0" if key[0] != "0" else "1") + key[1:]
    assert opened(runner, folder, "--key", other)[0] == 4


def test_every_altered_byte_of_a_signed_bundle(runner: Runner, signed: tuple[Path, str]) -> None:
    folder, key = signed
    rng = np.random.default_rng(1)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for index in range(80):
        file = files[index % len(files)]
        before = file.read_bytes()
        content = bytearray(before)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        assert opened(runner, folder, "--key", key)[0] == 4, file
        file.write_bytes(before)
    assert opened(runner, folder, "--key", key)[0] == 0


def test_files_beside_what_was_signed(runner: Runner, signed: tuple[Path, str]) -> None:
    folder, key = signed
    (folder / "model/more.bin").write_bytes(b"more")
    assert "more.bin is not among" in opened(runner, folder, "--key", key)[1]
    (folder / "model/more.bin").unlink()
    (folder / "repair.json").unlink()
    assert "lacks repair.json" in opened(runner, folder, "--key", key)[1]
    (folder / "signature.sig").unlink()
    assert "is not signed" in opened(runner, folder, "--key", key)[1]
    assert opened(runner, folder)[0] == 0


def test_golden_vectors_of_another_network(ort: Runner, tmp_path: Path) -> None:
    bundle = colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS)
    done = ort.run("--self-test", bundle.path)
    assert done.returncode == 0, done.stderr
    with np.load(bundle.path / "golden.npz") as stored:
        golden = dict(stored)
    np.savez(bundle.path / "golden.npz", **{**golden, "out.logits": golden["out.logits"][:, ::-1]})
    write_manifest(bundle.path, Manifest(target=find_target("x86-generic")), {"deployed": bundle.artifact()})
    done = ort.run("--self-test", bundle.path)
    assert done.returncode == 9
    assert "golden" in done.stderr
