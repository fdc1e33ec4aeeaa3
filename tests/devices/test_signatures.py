"""A signed bundle is used as it was signed, or not at all: here, by the device's runtime, and by devices that ask."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgetl
from edgetl.base.errors import BundleError, EdgetlError
from edgetl.base.storage import read_json, write_json
from edgetl.core.bundle import MANIFEST, Bundle, load_bundle
from edgetl.core.signature import SIGNATURE, STATEMENT, read_public_key, statement
from edgetl.devices import Device, add_device, find_device, selftest
from edgetl.devices.connection import disconnect
from edgetl.runtime import open_bundle
from edgetl.runtime.__main__ import main as device_end
from tests.devices.conftest import variant
from tests.devices.forged import forged
from tests.devices.real_sshd import Sshd

Cli = Callable[..., Any]
serialization = pytest.importorskip(
    "cryptography.hazmat.primitives.serialization", reason="edgetl[sign] makes signatures"
)
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")


def write_keys(folder: Path, name: str, password: bytes | None = None) -> Path:
    """A private key, ``NAME.pem``, and its public half, ``NAME.pub``; returns the former."""
    private = ed25519.Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.pem").write_bytes(private.private_bytes(pem, pkcs8, locked))
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / f"{name}.pem"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys ``own`` and ``other``."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("own", "other"):
        write_keys(folder, name)
    return folder


@pytest.fixture
def signed(host_bundle: Bundle, keys: Path, tmp_path: Path) -> Path:
    """A bundle that this machine executes, signed by the key ``own``; it has a record."""
    folder = forged(host_bundle, tmp_path / "signed")
    load_bundle(folder).write_record("bench.json", BENCH)
    edgetl.sign(folder, keys / "own.pem")
    return folder


BENCH = {"p50_ms": 1.0}


def runtime(*arguments: object) -> int:
    """What the device's end of edgetl makes of a command, in this process."""
    return device_end([str(argument) for argument in arguments])


def test_what_is_signed_is_every_file(signed: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = set(read_json(signed / STATEMENT)["files"])
    there = {p.relative_to(signed).as_posix() for p in signed.rglob("*") if p.is_file()}
    assert listed == there - {STATEMENT, SIGNATURE}
    assert {MANIFEST, "bench.json", "labels.json", "model/model.onnx"} <= listed
    opened = load_bundle(signed, keys / "own.pub")
    assert opened.signed_by == read_public_key(keys / "own.pub")
    assert load_bundle(signed).signed_by == ""
    assert runtime("selftest", signed, "--public-key", keys / "own.pub") == 0
    assert runtime("selftest", signed, "--public-key", opened.signed_by) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["passed"]
    with open_bundle(signed, public_key=keys / "own.pub") as model:
        assert model.bundle.signed_by == opened.signed_by


Attack = Callable[[Path], object]


def changed(name: str) -> Attack:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return change


def removed(name: str) -> Attack:
    return lambda folder: (folder / name).unlink()


def written(name: str, content: bytes) -> Attack:
    return lambda folder: (folder / name).write_bytes(content)


def linked(folder: Path) -> None:
    (folder / "labels.json").rename(folder.parent / "labels")
    (folder / "labels.json").symlink_to(folder.parent / "labels")


def stated_anew(folder: Path) -> None:
    """Another statement, with hashes that fit, under the old signature."""
    write_json(folder / "labels.json", ["a", "b", "c", "d"])
    (folder / STATEMENT).write_bytes(statement(folder))


ATTACKS: dict[str, Attack] = {
    **{f"{name} altered": changed(name) for name in (MANIFEST, "bench.json", "model/model.onnx", STATEMENT, SIGNATURE)},
    **{f"{name} gone": removed(name) for name in ("bench.json", "labels.json", STATEMENT, SIGNATURE)},
    "a file more": written("model/notes.txt", b"x"),
    "a record more": written("certificate.json", b"{}"),
    "a link more": lambda folder: (folder / "model/more").symlink_to("/etc/hostname"),
    "a pipe more": lambda folder: os.mkfifo(folder / "pipe"),
    "a link for a file": linked,
    "a signature of nothing": written(SIGNATURE, bytes(64)),
    "a longer signature": written(SIGNATURE, bytes(65)),
    "a statement that fits": stated_anew,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_not_signed_is_refused(
    signed: Path, keys: Path, attack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ATTACKS[attack](signed)
    with pytest.raises(BundleError) as caught:
        load_bundle(signed, keys / "own.pub")
    assert str(caught.value).isprintable()
    capsys.readouterr()
    assert runtime("selftest", signed, "--public-key", keys / "own.pub") == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)


def test_another_key_and_no_key(signed: Path, keys: Path, host_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="is not signed by the key"):
        load_bundle(signed, keys / "other.pub")
    with pytest.raises(BundleError, match="is not signed: sign it"):
        load_bundle(host_bundle.path, keys / "own.pub")
    with pytest.raises(BundleError, match="is not signed: sign it"):
        load_bundle(host_bundle, keys / "own.pub")


def test_nothing_is_parsed_before_the_signature_is_checked(signed: Path, keys: Path) -> None:
    """What would end in other words, or worse, if anything looked at it."""
    for name in (MANIFEST, STATEMENT, "bench.json", "golden.npz"):
        whole = (signed / name).read_bytes()
        (signed / name).write_bytes(b"[" * 100_000)
        with pytest.raises(BundleError, match=r"not what was signed|not signed by|altered"):
            load_bundle(signed, keys / "own.pub")
        (signed / name).write_bytes(whole)
    assert load_bundle(signed, keys / "own.pub")


def test_signing_again_and_what_cannot_be_signed(signed: Path, keys: Path) -> None:
    load_bundle(signed).write_record("bench.json", {"p50_ms": 2.0})
    with pytest.raises(
        BundleError, match="not what was signed: take the bundle from whoever signed it, or sign it again"
    ):
        load_bundle(signed, keys / "own.pub")
    edgetl.sign(signed, keys / "own.pem")
    assert load_bundle(signed, keys / "own.pub")
    (signed / "model/more").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="is no file"):
        edgetl.sign(signed, keys / "own.pem")
    (signed / "model/more").unlink()
    changed("model/model.onnx")(signed)
    with pytest.raises(BundleError, match="altered or damaged"):
        edgetl.sign(signed, keys / "own.pem")


def test_keys_of_every_usual_form(signed: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = write_keys(tmp_path, "locked", b"secret")
    with pytest.raises(EdgetlError, match="set EDGETL_KEY_PASSWORD"):
        edgetl.sign(signed, locked)
    monkeypatch.setenv("EDGETL_KEY_PASSWORD", "secret")
    edgetl.sign(signed, locked)
    assert load_bundle(signed, tmp_path / "locked.pub").signed_by
    monkeypatch.delenv("EDGETL_KEY_PASSWORD")
    if shutil.which("ssh-keygen"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me here", "-f", str(tmp_path / "ssh")]
        subprocess.run(command, check=True)
        public = edgetl.sign(signed, tmp_path / "ssh")
        assert public == read_public_key(tmp_path / "ssh.pub") == load_bundle(signed, tmp_path / "ssh.pub").signed_by
    (tmp_path / "hex").write_text(public + "\n")
    assert read_public_key(tmp_path / "hex") == read_public_key(public) == public


PEM = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"


@pytest.mark.parametrize("content", [b"", b"x", b"0" * 63, b"ssh-rsa AAAA", b"ssh-ed25519 !!", b"\xff" * 99, PEM])
def test_what_is_no_key(signed: Path, keys: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(BundleError, match="holds no Ed25519 public key"):
        load_bundle(signed, tmp_path / "key")
    with pytest.raises(EdgetlError, match="holds no private key"):
        edgetl.sign(signed, tmp_path / "key")


def test_a_private_key_is_no_public_one_and_keys_may_be_absent(signed: Path, keys: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="give the public half"):
        load_bundle(signed, keys / "own.pem")
    for ask in (lambda: load_bundle(signed, tmp_path / "gone"), lambda: edgetl.sign(signed, tmp_path / "gone")):
        with pytest.raises(EdgetlError, match="cannot read the"):
            ask()


def test_random_bytes_of_a_signed_bundle(signed: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A few of what benchmarks/signed_bytes.py does a thousand times."""
    draw = random.Random(7)
    files = sorted(p for p in signed.rglob("*") if p.is_file())
    for _ in range(40):
        file = draw.choice(files)
        whole = file.read_bytes()
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        file.write_bytes(content)
        with pytest.raises(BundleError):
            load_bundle(signed, keys / "own.pub")
        assert runtime("selftest", signed, "--public-key", keys / "own.pub") == 2
        file.write_bytes(whole)
    capsys.readouterr()
    assert load_bundle(signed, keys / "own.pub")


@pytest.fixture
def board(sshd: Sshd, own_home: Path) -> Device:
    """A device behind a real sshd on which nothing is yet."""
    disconnect()
    for name in (".cache", ".local"):
        shutil.rmtree(sshd.home / name, ignore_errors=True)
    return add_device("board", sshd.url(sshd.client("good")))


def test_a_device_that_demands_a_signature(
    signed: Path, keys: Path, host_bundle: Bundle, jpegs: list[Path], sshd: Sshd, own_home: Path, tmp_path: Path
) -> None:
    disconnect()
    for name in (".cache", ".local"):
        shutil.rmtree(sshd.home / name, ignore_errors=True)
    device = add_device("strict", sshd.url(sshd.client("good")), require_signature=keys / "own.pub")
    assert find_device("strict").required_key == read_public_key(keys / "own.pub")
    assert read_public_key(keys / "own.pub") in (own_home / "devices.toml").read_text()
    with pytest.raises(BundleError, match="is not signed"):
        selftest(device, host_bundle)
    assert not (sshd.home / ".cache").exists(), "nothing is sent there"
    assert selftest(device, load_bundle(signed)).passed
    (unsigned,) = edgetl.deploy(host_bundle, ["strict"], name="camera", force=True)
    assert "is not signed" in unsigned.reason
    (done,) = edgetl.deploy(signed, ["strict"], name="camera", force=True)
    assert done.state == "deployed", done.reason
    release = sshd.home / ".local/share/edgetl/camera/current"
    assert load_bundle(release, keys / "own.pub").digest == host_bundle.digest
    newer = variant(host_bundle, tmp_path / "newer").path
    edgetl.sign(newer, keys / "own.pem")
    assert edgetl.deploy(newer, ["strict"], name="camera", force=True)[0].state == "deployed"
    assert edgetl.rollback(["strict"], name="camera")[0].state == "rolled back"
    # What is in charge next is what was signed, too: a release that somebody changed there is not put in charge again.
    old = release.parent / "releases" / load_bundle(newer).digest / "labels.json"
    old.chmod(0o644)
    old.write_text("[]")
    assert "not what was signed" in edgetl.rollback(["strict"], name="camera")[0].reason
    disconnect()


def test_the_device_itself_looks(signed: Path, keys: Path, board: Device, sshd: Sshd, jpegs: list[Path]) -> None:
    """What the host checked may be another thing when it arrives."""
    opened = load_bundle(signed, keys / "own.pub")
    assert edgetl.predict(opened, [jpegs[0]], device="board")
    (signed / "bench.json").write_bytes((signed / "bench.json").read_bytes() + b" ")
    with pytest.raises(EdgetlError, match=r"^board: .*bench\.json is not what was signed"):
        edgetl.predict(opened, [jpegs[0]], device="board")
    disconnect()


def test_the_emulated_machine_looks_too(
    emulated: Device, bundle: Bundle, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = forged(bundle, tmp_path / "signed")
    edgetl.sign(folder, keys / "own.pem")
    opened = load_bundle(folder, keys / "own.pub")
    assert selftest(emulated, opened).passed
    (folder / "extra").write_text("x")
    with pytest.raises(EdgetlError, match="extra is not among what was signed"):
        selftest(emulated, opened)


def test_a_key_that_cannot_be_read_asks_all_the_same(own_home: Path, keys: Path) -> None:
    add_device("strict", "ssh://127.0.0.1:1", require_signature=keys / "own.pub")
    file = own_home / "devices.toml"
    file.write_text(re.sub(r'require_signature = ".*"', 'require_signature = ""', file.read_text()))
    with pytest.raises(BundleError, match="public key"):
        find_device("strict")
    with pytest.raises(BundleError, match="cannot read the public key"):
        add_device("other", "ssh://127.0.0.1:1", require_signature=keys / "gone")


def test_the_command_line(signed: Path, keys: Path, jpegs: list[Path], tmp_path: Path, edgetl: Cli) -> None:
    done = edgetl("sign", signed, "--key", keys / "own.pem", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["public_key"] == read_public_key(keys / "own.pub")
    assert edgetl("predict", signed, jpegs[0], "--public-key", keys / "own.pub").returncode == 0
    where = {"XDG_DATA_HOME": str(tmp_path / "data")}
    for verb in (("predict", signed, jpegs[0]), ("deploy", signed, "--device", "local", "--force"), ("verify", signed)):
        refused = edgetl(*verb, "--public-key", keys / "other.pub", **where)
        assert refused.returncode == 2, refused.stderr
        assert refused.stderr.count("\n") == 1
        assert "is not signed by the key" in refused.stderr
    deployed = edgetl("deploy", signed, "--device", "local", "--force", "--public-key", keys / "own.pub", **where)
    assert deployed.returncode == 0, deployed.stderr
    assert "note: deployed all the same: nothing certifies it" in deployed.stderr
