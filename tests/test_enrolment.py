"""Classes added on the device: what they answer, what they leave alone, and what no accident can make of a bundle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgetl
from edgetl.base.errors import BundleError, CertifyError, DataError, EdgetlError
from edgetl.base.storage import sha256_file
from edgetl.core.bundle import HEAD, Bundle, load_bundle
from edgetl.core.head_file import enrolled_content
from edgetl.core.signature import ENROLLED, ENROLLED_PARTIAL
from edgetl.inputs import input_of
from edgetl.runtime import enrolment, open_bundle, open_session
from edgetl.runtime.__main__ import main as device_end
from edgetl.runtime.open_head import answering, base_head, enrolled_head, seeing
from edgetl.runtime.predict import predict
from edgetl.workflow.sign_bundle import sign
from tests.conftest import ROOT, paint

Cli = Callable[..., subprocess.CompletedProcess[str]]
TARGETS = ("x86-generic", "intel-cpu")


@pytest.fixture(scope="module")
def made(edgetl: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured pictures, those of a colour that no class has, and bundles of a head of class means, in int8."""
    folder = tmp_path_factory.mktemp("enrolment")
    for hue, name in enumerate(("red", "green", "blue")):
        for index in range(30):
            paint(folder / "photos" / name / f"{index:02d}.png", hue, index)
    draw = np.random.default_rng(0)
    (folder / "held" / "yellow").mkdir(parents=True)
    for index in range(14):
        picture = np.clip(draw.normal(60, 25, (40, 48, 3)) + np.array((140, 140, 0)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / ("held/yellow" if index > 9 else "") / f"y{index:02d}.png")
    options = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--strategy", "slda")
    done = edgetl("finetune", folder / "photos", "--out", folder / "run", "--quiet", *options)
    assert done.returncode == 0, done.stderr
    targets = [word for target in (*TARGETS, "x86-litert") for word in ("--target", target)]
    done = edgetl("export", folder / "run", *targets, "--out", folder / "out", "--quiet", "--no-bench", "--no-repair")
    assert done.returncode in (0, 3, 4), done.stderr
    return folder


@pytest.fixture(params=TARGETS)
def each(made: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(made / "out" / request.param, tmp_path / request.param))


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "out" / "x86-generic", tmp_path / "x86-generic"))


def pictures(made: Path) -> list[Path]:
    return sorted(made.glob("y*.png"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def enrolled(folder: Path, name: str, files: list[Path]) -> enrolment.Enrolment:
    """As ``edgetl enroll`` does it, without a process of its own."""
    opened = load_bundle(folder)
    enrolment.check_new(opened, name)
    return enrolment.enroll(opened, name, logits(opened, files, "features"), [sha256_file(f) for f in files], "host")


def named(folder: Path, files: list[Path]) -> set[str | None]:
    with open_bundle(folder, threads=1) as asked:
        return {answer.label for answer in asked.predict(files)}


def logits(bundle: Bundle, files: list[Path], head: Any = "enrolled") -> np.ndarray:
    return predict(bundle, files, head=head)["logits"]


def test_an_added_class_answers_and_the_others_keep_their_logits(each: Path, made: Path) -> None:
    new, old = pictures(made), sorted((made / "photos/red").glob("*.png"))[:5]
    opened = load_bundle(each)
    before = logits(opened, old)
    done = enrolled(each, "yellow", new[:5])
    assert (done.added, done.enrolled, done.certified) == (5, {"yellow": 5}, ("blue", "green", "red"))
    assert done.bytes == (each / ENROLLED).stat().st_size < 10_000
    after = logits(opened, old)
    assert after.shape == (5, 4)
    assert np.abs(after[:, :3] - before).max() <= 1e-5 * np.abs(before).max()
    assert named(each, new[5:]) == {"yellow"}
    assert named(each, old) == {"red"}
    assert logits(opened, old, "certified").shape == (5, 3)


def test_the_mean_is_of_what_the_artifact_itself_computes(each: Path, made: Path) -> None:
    opened, files = load_bundle(each), pictures(made)[:4]
    seen = np.concatenate([open_session(seeing(opened)).run(input_of(opened).feeds(file))["logits"] for file in files])
    head, session = base_head(opened), open_session(opened.artifact())
    found = np.concatenate([session.run(input_of(opened).feeds(file))["logits"] for file in files])
    assert np.abs(seen @ head.weight.T + head.bias - found).max() <= 1e-5 * np.abs(found).max()
    enrolled(each, "yellow", files)
    added = enrolled_head(opened)
    assert added is not None
    assert np.allclose(added.means[0], seen.mean(0), rtol=1e-5, atol=1e-7)
    assert np.array_equal(added.weight, head.rule.rows(added.means)[0])


def test_pictures_that_come_later_join_the_mean_and_none_counts_twice(bundle: Path, made: Path) -> None:
    new = pictures(made)
    enrolled(bundle, "yellow", [*new[:3], new[0]])
    done = enrolled(bundle, "yellow", new[2:7])
    assert (done.added, done.enrolled) == (4, {"yellow": 7})
    step_by_step = enrolled_head(load_bundle(bundle))
    enrolment.forget(load_bundle(bundle), "yellow")
    enrolled(bundle, "yellow", new[:7])
    at_once = enrolled_head(load_bundle(bundle))
    assert step_by_step is not None
    assert at_once is not None
    assert np.allclose(step_by_step.means, at_once.means, rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="'yellow' has all of these samples already: give others"):
        enrolled(bundle, "yellow", new[:7])


def test_what_is_forgotten_leaves_the_bundle_that_came(each: Path, made: Path) -> None:
    came = snapshot(each)
    enrolled(each, "yellow", pictures(made)[:2])
    enrolled(each, "amber", pictures(made)[2:4])
    kept = enrolled_head(load_bundle(each))
    assert enrolment.forget(load_bundle(each), "yellow").enrolled == {"amber": 2}
    left = enrolled_head(load_bundle(each))
    assert kept is not None
    assert left is not None
    assert np.array_equal(left.weight[0], kept.weight[1])
    assert snapshot(each).keys() - came.keys() == {ENROLLED}
    enrolment.forget(load_bundle(each), "amber")
    assert snapshot(each) == came


def test_the_certificate_stays_the_certified_heads(bundle: Path, made: Path) -> None:
    before = load_bundle(bundle).certificate
    edgetl.enroll(bundle, "yellow", pictures(made)[:5])
    assert edgetl.predict(bundle, pictures(made)[6:7])[0].label == "yellow"
    after = edgetl.verify(bundle, data=made / "photos")
    assert before is not None
    assert (after.deployed_accuracy, after.n, after.classes) == (before.deployed_accuracy, before.n, before.classes)


def test_the_changed_head_is_tested_on_what_was_held_out(bundle: Path, made: Path) -> None:
    enrolled(bundle, "yellow", pictures(made)[:5])
    found = edgetl.verify_enrolled(bundle, data=made / "photos", held_out=made / "held")
    assert found.certificate.n == len(load_bundle(bundle).dataset.split("certify"))
    assert found.certificate.hashes["enrolled"]
    assert found.added["yellow"] is not None
    assert (found.added["yellow"].right, found.added["yellow"].n) == (4, 4)
    assert found.sentences == ("yellow: 4 of 4 held-out samples are answered rightly.",)
    enrolled(bundle, "yellow", [made / "held/yellow/y10.png"])
    with pytest.raises(CertifyError, match="1 of the 4 held-out samples of 'yellow' were enrolled"):
        edgetl.verify_enrolled(bundle, data=made / "photos", held_out=made / "held")
    enrolment.forget(load_bundle(bundle), "yellow")
    with pytest.raises(CertifyError, match="nothing was added"):
        edgetl.verify_enrolled(bundle, data=made / "photos")


def test_the_devices_own_end_enrolls_without_anything_else(
    bundle: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "samples.txt"
    listed.write_text("\n".join(map(str, pictures(made)[:3])), encoding="utf-8")
    assert device_end(["enroll", str(bundle), "--class", "yellow", "--samples", str(listed)]) == 0
    assert json.loads(capsys.readouterr().out)["enrolled"] == {"yellow": 3}
    assert named(bundle, pictures(made)[5:6]) == {"yellow"}
    assert device_end(["forget", str(bundle), "--class", "yellow"]) == 0
    assert not (bundle / ENROLLED).exists()
    assert device_end(["forget", str(bundle), "--class", "yellow"]) == 2
    assert "no class 'yellow' was added" in capsys.readouterr().err


def test_the_command_line_says_what_was_certified_and_what_is_new(edgetl: Cli, bundle: Path, made: Path) -> None:
    done = edgetl("enroll", bundle, "--class", "yellow", *pictures(made)[:5], "--json", "--quiet")
    told = json.loads(done.stdout)
    assert (done.returncode, told["class"], told["added"], told["enrolled"]) == (0, "yellow", 5, {"yellow": 5})
    assert told["sentences"][0].startswith("Certified: blue, green and red (")
    assert told["sentences"][1].startswith("New and untested: yellow (5 samples).")
    asked = json.loads(edgetl("predict", bundle, pictures(made)[6], "--json", "--quiet").stdout)
    assert asked["predictions"][0]["labels"][0]["label"] == "yellow"
    tested = edgetl("verify", bundle, "--enrolled", "--data", made / "photos", "--json", "--quiet")
    assert tested.returncode in (0, 3, 4), tested.stderr
    assert json.loads(tested.stdout)["added"] == {"yellow": None}
    done = edgetl("forget", bundle, "--class", "yellow")
    assert (done.returncode, "yellow: taken away" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("red", 1), EdgetlError, "'red' is one of the 3 certified classes"),
        (("a/b", 1), EdgetlError, "is no name of a class"),
        (("yellow", 0), DataError, "there is no sample"),
    ],
)
def test_what_cannot_be_enrolled(bundle: Path, made: Path, words: tuple[str, int], error: type, said: str) -> None:
    came = snapshot(bundle)
    with pytest.raises(error, match=said):
        edgetl.enroll(bundle, words[0], pictures(made)[: words[1]])
    assert snapshot(bundle) == came


def test_a_fixed_head_is_said_to_be_one(made: Path, tiny_bundle: Path) -> None:
    for folder in (tiny_bundle, made / "out/x86-litert"):
        with pytest.raises(
            BundleError, match=r"is fixed.*train with --strategy prototype, nearest-mean, slda"
        ) as refused:
            edgetl.enroll(folder, "yellow", pictures(made)[:1])
        assert "\n" not in str(refused.value)
        with pytest.raises(BundleError, match="is fixed"):
            edgetl.forget(folder, "yellow")


def test_features_that_are_no_numbers_are_refused(bundle: Path) -> None:
    opened = load_bundle(bundle)
    for features in (np.full((1, 256), np.nan, np.float32), np.zeros((1, 7), np.float32)):
        with pytest.raises(DataError, match="are not 256 finite numbers a sample"):
            enrolment.enroll(opened, "yellow", features, ["0" * 64], "host")


#: A process that ends itself, as kill -9 does, at the n-th step that it takes in the bundle's folder.
_KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from edgetl.core.bundle import load_bundle
from edgetl.runtime import enrolment

folder, step, verb, name = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
bundle, steps = load_bundle(folder), 0
def count(event, arguments):
    global steps
    if event in ("open", "os.rename", "os.remove") and folder in str(arguments[0]):
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
if verb == "enroll":
    enrolment.enroll(bundle, name, np.ones((1, 256), np.float32), [name.rjust(64, "0")], "host")
else:
    enrolment.forget(bundle, name)
"""


def test_a_process_killed_at_any_step_leaves_the_old_head_or_the_new_one(bundle: Path, made: Path) -> None:
    first = np.zeros((1, 256), np.float32)
    enrolment.enroll(load_bundle(bundle), "first", first, ["a" * 64], "host")
    came = snapshot(bundle)
    for verb, name, ends in (
        ("enroll", "second", (["first"], ["first", "second"])),
        ("forget", "first", (["first"], [])),
    ):
        died = 0
        for step in range(1, 30):
            command = [sys.executable, "-c", _KILLED, str(bundle), str(step), verb, name]
            done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
            head = enrolled_head(load_bundle(bundle))
            assert [one.name for one in head.classes] if head else [] in ends
            (bundle / ENROLLED).write_bytes(came[ENROLLED])
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, done.stderr
            died += 1
        assert died >= 3
        assert done.returncode == 0
    (bundle / ENROLLED_PARTIAL).unlink(missing_ok=True)
    assert snapshot(bundle) == came


def test_a_damaged_or_foreign_file_of_added_classes_is_refused(edgetl: Cli, bundle: Path, made: Path) -> None:
    opened = load_bundle(bundle)
    enrolment.enroll(opened, "yellow", np.ones((2, 256), np.float32), ["a" * 64, "b" * 64], "host")
    whole, head = (bundle / ENROLLED).read_bytes(), enrolled_head(opened)
    assert head is not None
    head.weight[0, 0] = np.nan
    spoilt = enrolled_content(head)
    for content, said in (
        (whole[:-40], "no head that this edgetl reads"),
        (spoilt, "not all of its numbers are finite"),
        (whole.replace(opened.digest.encode(), b"0" * 64), "its digest does not match"),
        (b"", "it is none"),
    ):
        (bundle / ENROLLED).write_bytes(content)
        with pytest.raises(BundleError, match=said) as refused:
            named(bundle, pictures(made)[:1])
        assert "\n" not in str(refused.value)
        done = edgetl("enroll", bundle, "--class", "x", pictures(made)[0], "--quiet")
        assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    (bundle / ENROLLED).write_bytes(whole)
    altered = (bundle / HEAD).read_bytes()
    (bundle / HEAD).write_bytes(altered[:-1] + bytes([altered[-1] ^ 1]))
    done = edgetl("predict", bundle, pictures(made)[0], "--quiet")
    assert (done.returncode, "head.bin is altered or damaged" in done.stderr) == (2, True)


def test_classes_of_another_bundle_are_refused(made: Path, bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(made / "out" / "intel-cpu", tmp_path / "other"))
    enrolled(other, "yellow", pictures(made)[:1])
    shutil.copy(other / ENROLLED, bundle / ENROLLED)
    with pytest.raises(BundleError, match="belongs to another bundle"):
        named(bundle, pictures(made)[:1])
    with pytest.raises(BundleError, match="has none of the added classes"):
        answering(load_bundle(other), "float")


def test_a_signature_vouches_for_what_was_certified_and_for_no_class_that_was_added(
    edgetl: Cli, bundle: Path, made: Path, tmp_path: Path
) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519", reason="edgetl[sign] signs")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public = private.public_key().public_bytes_raw().hex()
    sign(bundle, tmp_path / "key.pem")
    new = pictures(made)
    enrolled(bundle, "yellow", new[:1])
    assert load_bundle(bundle, public).signed_by == public
    refused = edgetl("predict", bundle, new[1], "--public-key", public, "--quiet")
    assert (refused.returncode, "was added after the bundle was signed" in refused.stderr) == (2, True)
    assert named(bundle, new[1:2]) == {"yellow"}
    (bundle / "stray.head").write_bytes(b"")
    with pytest.raises(BundleError, match=r"stray\.head is not among what was signed"):
        load_bundle(bundle, public)
    (bundle / "stray.head").unlink()
    sign(bundle, tmp_path / "key.pem")
    answered = edgetl("predict", bundle, new[1], "--public-key", public, "--json", "--quiet")
    assert json.loads(answered.stdout)["predictions"][0]["labels"][0]["label"] == "yellow"
    enrolled(bundle, "amber", new[2:3])
    with pytest.raises(BundleError, match=r"enrolled\.head is not what was signed"):
        load_bundle(bundle, public)


def test_a_release_is_what_was_certified(bundle: Path, made: Path) -> None:
    enrolled(bundle, "yellow", pictures(made)[:1])
    with pytest.raises(BundleError, match="a release is what was certified"):
        edgetl.deploy(bundle, devices=["local"])
