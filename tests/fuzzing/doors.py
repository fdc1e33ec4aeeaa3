"""The files that edgetl reads and did not write itself, and what reads each."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

import edgetl
from edgetl import devices
from edgetl.base.schema import to_json
from edgetl.base.storage import read_json, sha256_bytes, sha256_file, write_json, write_sealed
from edgetl.core.bundle import Artifact, load_bundle
from edgetl.core.bundle_archive import pack, unpack
from edgetl.core.run import load_run
from edgetl.core.targets import load_targets
from edgetl.devices import receiver
from edgetl.devices.local import LocalDevice
from edgetl.devices.process import Finished, answer, read_outputs
from edgetl.inputs.datasets import load_dataset
from edgetl.inputs.image import Preprocess
from edgetl.inputs.kinds import INPUTS
from edgetl.runtime.installed import Installed, SelfTest
from edgetl.runtime.transport import write_arrays
from edgetl.workflow.sign_bundle import sign
from tests.fuzzing.contents import Contents, arrays, damaged, lines, record
from tests.fuzzing.endings import DeviceEnd, Ended, call, command
from tests.records import measurement, put_into_bundle, put_into_run, whole_bundle, whole_run
from tests.runtime.tiny import model, seal, text_bundle

Ask = Callable[[Path], Ended]
_JSON = ("manifest", "certificate", "bench", "repair", "labels", "preprocess", "splits", "calibration", "layers")
_MODELS = ("exported/model.onnx", "model/model.xml", "model/model.bin", "float/model.xml")


@dataclass(frozen=True)
class Door:
    """One file that comes from outside.

    Attributes:
        name: of it, in what is told of the fuzzer.
        original: what it holds when all is well.
        contents: what it may hold instead.
        enter: puts a content there, in a fresh place, and returns what is asked.
        asks: what may be asked of the place, by name.
        native: whether a runtime parses the file, whose own crash is not edgetl's.
    """

    name: str
    original: bytes
    contents: Callable[[bytes], Contents]
    enter: Callable[[bytes], Path]
    asks: Mapping[str, Ask] = field(default_factory=dict)
    native: bool = False


def doors(work: Path, end: DeviceEnd) -> list[Door]:
    """Every door; each is entered in a folder below ``work``."""
    return [
        *_of_bundles(work),
        *_at_devices(work, end),
        *_of_signed_bundles(work, end),
        *_of_archives(work),
        *_of_runs(work),
        *_of_samples(work),
        *_of_tables(work),
        *_of_users(work),
        *_of_devices(work, end),
    ]


def _fresh(original: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(original, place, symlinks=True))


def _of_bundles(work: Path) -> Iterator[Door]:
    whole = whole_bundle(work / "bundle")
    report = work / "report.html"
    host: dict[str, Ask] = {
        "verify --check": lambda folder: command("verify", folder, "--check"),
        "verify --json": lambda folder: command("verify", folder, "--margin", "0.4", "--json", "--quiet"),
        "report": lambda folder: command("report", folder, "--out", report),
    }
    for name in (f"{part}.json" for part in _JSON):
        yield Door(f"bundle/{name}", (whole / name).read_bytes(), record, _into(whole, name, work), host)
    for name in ("golden.npz", "reference.npz", "predictions.npz"):
        yield Door(f"bundle/{name}", (whole / name).read_bytes(), arrays, _into(whole, name, work), host)
    loads: dict[str, Ask] = {"load": lambda folder: call(lambda: load_bundle(folder))}
    for name in _MODELS:
        yield Door(f"bundle/{name}", (whole / name).read_bytes(), damaged, _into(whole, name, work), loads)
    mine = _answers(whole)
    given: dict[str, Ask] = {
        "verify --predictions": lambda folder: command(
            "verify", folder, "--predictions", folder / "mine.npz", "--quiet"
        )
    }

    def give(content: bytes) -> Path:
        folder = _fresh(whole, work / "entered")
        (folder / "mine.npz").write_bytes(content)
        return folder

    yield Door("answers of a program of the user's own", mine, arrays, give, given)


def _into(whole: Path, name: str, work: Path) -> Callable[[bytes], Path]:
    """Puts a content into a copy of a bundle, and sets every hash right."""

    def put(content: bytes) -> Path:
        folder = _fresh(whole, work / "entered")
        put_into_bundle(folder, name, content)
        return folder

    return put


def _small(folder: Path) -> Path:
    """A bundle of a small network, in float, whose answers depend on no instruction set."""
    path = folder / "model" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model(), path)
    return seal(folder, Artifact("onnxruntime", path, "fp32")).path


def _at_devices(work: Path, end: DeviceEnd) -> Iterator[Door]:
    whole = _small(work / "small")
    asks: dict[str, Ask] = {
        "selftest": lambda folder: end.ask("selftest", folder, "--threads", "1"),
        "install": lambda folder: end.ask("install", folder, "--name", "camera", "--threads", "1"),
    }
    kinds = {"manifest.json": record, "labels.json": record, "preprocess.json": record, "golden.npz": arrays}
    for name, kind in kinds.items():
        yield Door(f"on the device: {name}", (whole / name).read_bytes(), kind, _into(whole, name, work), asks)
    file = "model/model.onnx"
    enter = _into(whole, file, work)
    yield Door(f"on the device: {file}", (whole / file).read_bytes(), damaged, enter, asks, native=True)


def _answers(bundle: Path) -> bytes:
    samples = load_bundle(bundle).dataset.split("certify")
    with np.load(bundle / "reference.npz") as stored:
        logits = stored["reference.logits"]
    stream = io.BytesIO()
    np.savez(stream, logits=logits, sha256=np.array([sample.sha256 for sample in samples]))
    return stream.getvalue()


def private_key(file: Path) -> Path:
    """A key made on the spot."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(*form))
    return file


def _of_signed_bundles(work: Path, end: DeviceEnd) -> Iterator[Door]:
    whole = _small(work / "signed")
    key = sign(whole, private_key(work / "key.pem"))
    asks: dict[str, Ask] = {
        "load --public-key": lambda folder: call(lambda: load_bundle(folder, key)),
        "selftest --public-key (device)": lambda folder: end.ask("selftest", folder, "--public-key", key),
    }

    def enter(name: str) -> Callable[[bytes], Path]:
        def put(content: bytes) -> Path:
            folder = _fresh(whole, work / "entered")
            (folder / name).write_bytes(content)
            return folder

        return put

    yield Door("signed/signature.json", (whole / "signature.json").read_bytes(), record, enter("signature.json"), asks)
    for name in ("signature.sig", "manifest.json", "model/model.onnx"):
        yield Door(f"signed/{name}", (whole / name).read_bytes(), damaged, enter(name), asks)

    def give(content: bytes) -> Path:
        (work / "key.pub").write_bytes(content)
        return work / "key.pub"

    read: dict[str, Ask] = {"load --public-key": lambda file: call(lambda: load_bundle(whole, file))}
    yield Door("a public key", f"{key}\n".encode(), damaged, give, read)


def _of_archives(work: Path) -> Iterator[Door]:
    whole = pack(_small(work / "to-pack"), work / "packed.zip").read_bytes()

    def put(content: bytes) -> Path:
        shutil.rmtree(work / "unpacked", ignore_errors=True)
        (work / "entered.zip").write_bytes(content)
        return work / "entered.zip"

    asks: dict[str, Ask] = {
        "unpack": lambda file: call(lambda: unpack(file, work / "unpacked")),
        "unpack --json": lambda file: command("unpack", file, "--out", work / "unpacked", "--json"),
    }
    yield Door("an archive", whole, damaged, put, asks)


def _of_runs(work: Path) -> Iterator[Door]:
    whole = whole_run(work / "run")
    asks: dict[str, Ask] = {
        "report": lambda folder: command("report", folder, "--out", work / "report.html"),
        "load": lambda folder: call(lambda: (load_run(folder).to_json(), load_run(folder).digest)),
        "export": lambda folder: command("export", folder, "--target", "moon", "--out", work / "out"),
    }

    def enter(name: str) -> Callable[[bytes], Path]:
        def put(content: bytes) -> Path:
            folder = _fresh(whole, work / "entered")
            put_into_run(folder, name, content)
            return folder

        return put

    for name in ("run.json", "splits.json", "preprocess.json"):
        yield Door(f"run/{name}", (whole / name).read_bytes(), record, enter(name), asks)
    yield Door("run/history.jsonl", (whole / "history.jsonl").read_bytes(), lines, enter("history.jsonl"), asks)
    for outputs in sorted(path.name for path in whole.glob("*.npz")):
        yield Door(f"run/{outputs}", (whole / outputs).read_bytes(), arrays, enter(outputs), asks)


def _picture(form: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def _of_samples(work: Path) -> Iterator[Door]:
    half = (0.5, 0.5, 0.5)
    preprocess = Preprocess(8, 8, 10, "bilinear", half, half)

    def enter(name: str) -> Callable[[bytes], Path]:
        def put(content: bytes) -> Path:
            (work / name).write_bytes(content)
            return work / name

        return put

    seen: dict[str, Ask] = {
        "scan": lambda file: call(lambda: (INPUTS["image"].fingerprint(file), _remark(file))),
        "feeds": lambda file: call(lambda: preprocess.feeds(file)),
    }
    for form in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"):
        yield Door(f"image ({form})", _picture(form), damaged, enter(f"picture.{form.lower()}"), seen)
    stream = io.BytesIO()
    np.save(stream, np.arange(12, dtype=np.float32).reshape(3, 4))
    scan: dict[str, Ask] = {"scan": lambda file: call(lambda: INPUTS["tensor"].fingerprint(file))}
    yield Door("array (.npy)", stream.getvalue(), damaged, enter("sample.npy"), scan)
    words: dict[str, Ask] = {"scan": lambda file: call(lambda: INPUTS["text"].fingerprint(file))}
    yield Door("text", "A good film, said é.\n".encode(), damaged, enter("sample.txt"), words)
    texts = text_bundle(work / "texts")
    sentence = work / "sentence.txt"
    sentence.write_text("a good film")

    def tokens(content: bytes) -> Path:
        folder = _fresh(texts.path, work / "entered")
        (folder / "tokenizer.json").write_bytes(content)
        definition = read_json(folder / "preprocess.json")
        digest = sha256_file(folder / "tokenizer.json")
        for key, value in definition.items():
            if isinstance(value, str) and len(value) == len(digest):
                definition[key] = digest
        write_json(folder / "preprocess.json", definition)
        manifest = read_json(folder / "manifest.json")
        for name in ("tokenizer.json", "preprocess.json"):
            entry = {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
            manifest["files"][name] = entry
        write_sealed(folder / "manifest.json", manifest)
        return folder

    predict: dict[str, Ask] = {
        "predict": lambda folder: call(lambda: edgetl.load_bundle(folder).predict(sentence)),
    }
    original = (texts.path / "tokenizer.json").read_bytes()
    yield Door("bundle/tokenizer.json", original, record, tokens, predict, native=True)


def _remark(file: Path) -> str:
    remark = INPUTS["image"].remark
    return remark(file) if remark else ""


def _of_tables(work: Path) -> Iterator[Door]:
    folder = work / "table"
    folder.mkdir()
    for index in range(12):
        Image.fromarray(np.full((6, 6, 3), 20 * index, np.uint8)).save(folder / f"{index}.png")
    header, rows = "path,label,split,group", [f"{i}.png,{'ab'[i % 2]},,{i // 2}" for i in range(12)]
    numbers = ["path,target", *(f"{i}.png,{i / 3}" for i in range(12))]
    several = ["path,labels", *(f"{i}.png,{'a;b' if i % 2 else 'b'}" for i in range(12))]
    sentences = ["text,label", *(f'"Film {i}, seen",{"ab"[i % 2]}' for i in range(12))]

    def put(content: bytes) -> Path:
        (folder / "data.csv").write_bytes(content)
        return folder / "data.csv"

    read: dict[str, Ask] = {
        "read": lambda file: call(lambda: load_dataset(file, into=_made(work / "samples"))),
        "finetune": lambda file: command(
            "finetune", file, "--out", work / "tried", "--backbone", "nothing-of-that-name", "--quiet"
        ),
    }
    for name, held in (("classes", [header, *rows]), ("numbers", numbers), ("labels", several), ("texts", sentences)):
        yield Door(f"CSV of {name}", "".join(f"{line}\n" for line in held).encode(), lines, put, read)
    stream = io.BytesIO()
    np.savez(stream, x=np.arange(96, dtype=np.float32).reshape(12, 8), y=np.arange(12) % 2)

    def store(content: bytes) -> Path:
        (folder / "data.npz").write_bytes(content)
        return folder / "data.npz"

    yield Door("arrays of samples (.npz)", stream.getvalue(), arrays, store, {"read": read["read"]})


def _made(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _variable(name: str, value: Path) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = str(value)
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _of_users(work: Path) -> Iterator[Door]:
    """What a user writes by hand: targets, devices."""

    def target(content: bytes) -> Path:
        # Another folder each time: what was read of a folder is kept.
        folder = _made(work / "targets") / uuid.uuid4().hex
        (folder / "board").mkdir(parents=True)
        (folder / "board/target.toml").write_bytes(content)
        return folder

    def listed(folder: Path) -> Ended:
        with _variable("EDGETL_TARGETS", folder):
            return command("targets", "--json")

    known = next(iter(load_targets()))
    file = Path(__file__).resolve().parents[2] / "targets" / known / "target.toml"
    original = file.read_text(encoding="utf-8").replace(f'name = "{known}"', 'name = "board"').encode()
    yield Door("target.toml", original, lines, target, {"targets": listed})

    def mine(content: bytes) -> Path:
        home = _made(work / "home")
        home.mkdir()
        (home / "devices.toml").write_bytes(content)
        return home

    def asked(*words: str) -> Ask:
        def ask(home: Path) -> Ended:
            with _variable("EDGETL_HOME", home):
                return command(*words)

        return ask

    board = 'schema = 2\n[devices.board]\nkind = "ssh"\nurl = "ssh://me@board:22"\n'
    entries = f'{board}[devices.board.probed]\narch = "aarch64"\n'
    asks = {"devices": asked("devices", "--json"), "devices remove": asked("devices", "remove", "board")}
    asks["devices add"] = asked("devices", "add", "other", "ssh://other")
    yield Door("devices.toml", entries.encode(), lines, mine, asks)


@dataclass(frozen=True)
class _Answering(LocalDevice):
    """A device that answers what it likes."""

    content: bytes = b""

    def call(self, arguments: Sequence[str], **options: Any) -> dict[str, Any]:
        return answer(self.name, Finished(0, self.content, ""))


def _of_devices(work: Path, end: DeviceEnd) -> Iterator[Door]:
    """What devices answer, and what comes to them."""
    bundle = load_bundle(work / "bundle")
    tested = SelfTest(passed=True, max_difference=0.01, tolerance=0.05, n=4, agreement=1.0)
    release = Installed("deployed", "00-r", None, "camera/current", tested)
    known: Mapping[str, tuple[Any, Callable[[_Answering], object]]] = {
        "machine": (json.loads(end.ask("machine").out), lambda device: device.probe()),
        "bench": (to_json(measurement()), lambda device: devices.bench(device, bundle)),
        "selftest": (to_json(tested), lambda device: devices.selftest(device, bundle)),
        "install": (to_json(release), lambda device: devices.install(device, bundle, "camera")),
    }

    def put(content: bytes) -> Path:
        (work / "answer").write_bytes(content)
        return work / "answer"

    def ask(read: Callable[[_Answering], object]) -> Ask:
        return lambda file: call(lambda: read(_Answering("odd", file.read_bytes().replace(b"\n", b" "))))

    for verb, (said, read) in known.items():
        yield Door(f"a device's answer to {verb}", json.dumps(said).encode(), record, put, {verb: ask(read)})
    stream = io.BytesIO()
    write_arrays(stream, {"logits": np.zeros((3, 3), np.float32)})
    outputs: dict[str, Ask] = {"outputs": lambda file: call(lambda: read_outputs("odd", file.read_bytes()))}
    yield Door("a device's outputs", stream.getvalue(), arrays, put, outputs)
    files = {"manifest.json": sha256_bytes(b"{}"), "model/m": sha256_bytes(b"m")}
    wanted = {"path": f"bundles/{'0' * 64}", "files": files}
    look: dict[str, Ask] = {"look": lambda file: _receive(work / "cache", "look", file.read_bytes())}
    yield Door("what a device is asked for", json.dumps(wanted).encode(), record, put, look)
    take: dict[str, Ask] = {"take": lambda file: _receive(work / "cache", "take", file.read_bytes())}
    yield Door("a stream to a device", _stream(wanted), damaged, put, take)
    told: dict[str, Ask] = {"take": lambda file: _receive(work / "cache", "take", _stream(_or_none(file)))}
    yield Door("what a stream is put together to", json.dumps(wanted).encode(), record, put, told)


def _or_none(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None


def _stream(wanted: Any) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        members = {sha256_bytes(data): data for data in (b"{}", b"m")}
        for name, data in {**members, receiver.LAST: json.dumps(wanted).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


class _Bytes(io.StringIO):
    """Standard input of those bytes."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.buffer = io.BytesIO(content)  # type: ignore[misc]


def _receive(cache: Path, verb: str, content: bytes) -> Ended:
    """What the receiver does with a stream; a file anywhere else than in its cache is no ending."""
    outside = cache.parent / "outside"
    shutil.rmtree(cache, ignore_errors=True)
    for name in ("files", "bundles", "code"):
        (cache / name).mkdir(parents=True)
    before, sys.stdin = sys.stdin, _Bytes(content)
    said = io.StringIO()
    mask = os.umask(0o077)  # The receiver is a process of its own, and does not put it back.
    try:
        with contextlib.redirect_stdout(said):
            ended = call(lambda: receiver.main(cache, verb), refusals=(SystemExit,))
    finally:
        sys.stdin = before
        os.umask(mask)
    if outside.exists() or [path for path in cache.rglob("*") if path.is_symlink()]:
        return Ended(1, err="a file outside of its place")
    return ended
