"""How the sweep measures an artifact: accuracy, integer share, times in turns, instructions under emulation."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from benchmarks.instructions import count
from benchmarks.models import imagenet_run
from benchmarks.recipe_guest import open_configured
from edgetl.base.schema import to_json
from edgetl.base.storage import sha256_file
from edgetl.certify import PairedCounts, noninferiority
from edgetl.compress.export import export_onnx
from edgetl.compress.samples import select_samples
from edgetl.core.bundle import Artifact
from edgetl.core.tensors import Arrays, single
from edgetl.devices.payload import write_payload
from edgetl.devices.rootfs import emulated_environment, emulated_python, read_marker
from edgetl.inputs import input_of, preprocess_of
from edgetl.latency.stats import speedup
from edgetl.runtime.measure import interleave
from edgetl.runtime.predict import infer
from edgetl.runtime.sensors import state
from edgetl.runtime.sessions import Executed, Session

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Settings = Mapping[str, str]
#: Seconds to wait for other benchmarks to end.
PATIENCE = 150
#: name → artifact, threads, settings of the runtime; the first is the yardstick
Timed = Mapping[str, tuple[Artifact, int, Settings]]
ROOT = Path(__file__).resolve().parents[1]
GUEST = Path(__file__).with_name("recipe_guest.py")


@dataclass(frozen=True)
class Place:
    """Where else an artifact runs.

    Attributes:
        name: of the CPU.
        command: what starts a Python there.
        environment: of its processes.
        images: how many of the held-out ones it is given; emulated x86-64 takes a second for each.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    images: int


@dataclass(frozen=True)
class Bench:
    """What every part shares.

    Attributes:
        work: where models and answers are kept between calls.
        source: float ONNX file of EfficientNet-Lite0 with ImageNet weights.
        calibration: images of the calibration split, uint8 (128, 224, 224, 3), in a recipe's order.
        held_out: the 872 others, in a fixed random order.
        labels: of the held-out images.
        seconds: for each timed comparison.
        lock: file that is locked while something is measured (exclusively for times), so that several benchmarks can
            share a machine; None locks nothing.
    """

    work: Path
    source: Path
    calibration: Images
    held_out: Images
    labels: Labels
    seconds: float
    lock: Path | None

    @contextlib.contextmanager
    def alone(self, exclusively: bool) -> Iterator[bool]:
        """While the lock is held; tells whether exclusively, which is given up after :data:`PATIENCE` seconds."""
        if self.lock is None:
            yield exclusively
            return
        with self.lock.open("a") as stream:
            got = exclusively and _patiently(stream)
            if not got:
                fcntl.flock(stream, fcntl.LOCK_SH)
            yield got


class Clocked:
    """A session that also notes the processor time of each run, of all threads, in milliseconds."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.inputs = session.inputs
        self.cpu_ms: list[float] = []

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See :class:`edgetl.runtime.sessions.Session`."""
        started = time.process_time_ns()
        outputs = self._session.run(feeds)
        self.cpu_ms.append((time.process_time_ns() - started) / 1e6)
        return outputs

    def executed(self) -> Executed:
        """See :class:`edgetl.runtime.sessions.Session`."""
        return self._session.executed()

    def close(self) -> None:
        """See :class:`edgetl.runtime.sessions.Session`."""
        self._session.close()


def _patiently(stream: IO[str]) -> bool:
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def prepare(data: Path, work: Path, seconds: float, lock: Path | None) -> Bench:
    """The model and its images, made once in ``work``; ``data`` is the folder imagenet-sample."""
    source, stored = work / "float.onnx", work / "images.npz"
    if not (source.is_file() and stored.is_file()):
        run = imagenet_run(data, work / "run", 700)
        from edgetl.transfer.model import load_model

        export_onnx(load_model(run), preprocess_of(run), source)
        chosen = select_samples(run.dataset, "class-balanced", 128, 0)
        rest = [s for s in run.dataset.samples if s.split != "calibration"]
        rest = [rest[i] for i in np.random.default_rng(0).permutation(len(rest))]
        with stored.open("wb") as stream:
            np.savez(
                stream,
                calibration=input_of(run).batch(chosen.paths)["image"],
                held_out=input_of(run).batch([run.dataset.root / s.path for s in rest])["image"],
                labels=np.array([s.label for s in rest], np.int64),
            )
    with np.load(stored) as arrays:
        return Bench(work, source, arrays["calibration"], arrays["held_out"], arrays["labels"], seconds, lock)


def answers(bench: Bench, artifact: Artifact, settings: Settings = MappingProxyType({})) -> tuple[Logits, Any]:
    """Logits of each held-out image on this machine, and what was executed; kept in ``work``."""
    kept = _kept(bench, artifact, "here", settings, len(bench.held_out))
    if not kept.is_file():
        with bench.alone(False):
            session = open_configured(artifact, 1, dict(settings))
            found = np.concatenate([single(infer(session, {"image": image[None]})) for image in bench.held_out])
            executed = json.dumps(vars(session.executed()))
            session.close()
        with kept.open("wb") as stream:
            np.savez(stream, logits=found, executed=np.array(executed))
    return _read(kept)


def answers_elsewhere(
    bench: Bench, artifact: Artifact, place: Place, settings: Settings = MappingProxyType({})
) -> tuple[Logits, Any]:
    """The same in another process, on the first held-out images."""
    kept = _kept(bench, artifact, place.name, settings, place.images)
    if not kept.is_file():
        first = bench.work / f"first-{place.images}.npy"
        if not first.is_file():
            np.save(first, bench.held_out[: place.images])
        arguments = [str(GUEST), str(artifact.path), artifact.backend, artifact.precision, str(first), str(kept)]
        if settings:
            arguments += ["--config", *(f"{key}={value}" for key, value in settings.items())]
        with bench.alone(False):
            done = subprocess.run(
                [*place.command, *arguments], capture_output=True, text=True, check=False, env=dict(place.environment)
            )
        if done.returncode:
            raise SystemExit(f"{artifact.path} on {place.name}: {done.stderr.strip()[-500:]}")
    return _read(kept)


def compared(reference: Logits, deployed: Logits, labels: Labels) -> dict[str, Any]:
    """Accuracy of both and the paired difference with its 90 % interval, in shares of the images that both saw.

    ``logit_noise`` is the RMS of the logits' difference over the standard deviation of the reference's logits.
    """
    n = min(len(reference), len(deployed))
    before, after = reference[:n], deployed[:n]
    counts = PairedCounts.from_predictions(before.argmax(1), after.argmax(1), labels[:n])
    test = noninferiority(counts)
    return {
        "n": n, "accuracy": counts.deployed_accuracy, "reference_accuracy": counts.reference_accuracy,
        "difference": counts.difference, "ci_low": test.ci_low, "ci_high": test.ci_high,
        "lost": counts.lost, "gained": counts.gained,
        "agreement": float((before.argmax(1) == after.argmax(1)).mean()),
        "logit_noise": float(np.sqrt(((after - before) ** 2).mean()) / before.std()),
    }  # fmt: skip


def timed(bench: Bench, compared: Timed) -> dict[str, Any]:
    """Medians of each and its speed-up over the first, all taking turns in this process; the caller holds the lock.

    ``p50_ms`` is by the clock on the wall. ``cpu_ms`` is processor time: with one thread the same, but for what other
    processes take away. ``speedup`` is of wall times, ``cpu_speedup`` of processor times.
    """
    sessions = {
        name: Clocked(open_configured(artifact, threads, dict(settings)))
        for name, (artifact, threads, settings) in compared.items()
    }
    before = state()["load_1min"]
    walls = interleave(sessions, [{"image": image[None]} for image in bench.held_out[:32]], seconds=bench.seconds)
    rounds = len(walls[next(iter(walls))])
    times = {name: (walls[name], session.cpu_ms[-rounds:]) for name, session in sessions.items()}
    first = next(iter(times.values()))
    result: dict[str, Any] = {"load_before": before, "rounds": rounds}
    for name, (wall, cpu) in times.items():
        ratios = {"speedup": to_json(speedup(first[0], wall)), "cpu_speedup": to_json(speedup(first[1], cpu))}
        result[name] = {"p50_ms": float(np.median(wall)), "cpu_ms": float(np.median(cpu)), **ratios}
        sessions[name].close()
    return result


def instructions(bench: Bench, artifact: Artifact, root: Path) -> dict[str, Any]:
    """Guest instructions of one inference on emulated Arm, by two processes (see ``instructions/count.py``)."""
    arguments = [str(GUEST), str(artifact.path), artifact.backend, artifact.precision]
    first = bench.work / "one.npy"
    if not first.is_file():
        np.save(first, bench.held_out[:1])
    with bench.alone(False), tempfile.TemporaryDirectory() as scratch:
        arguments += [str(first), str(Path(scratch) / "out.npz"), "--marks"]
        return count.per_call(root, arguments, bench.work / "count", environment=arm(bench, root).environment)


def arm(bench: Bench, root: Path) -> Place:
    """The emulated Arm machine of that root folder, with edgetl's device end on its import path."""
    marker = read_marker(root)
    command = emulated_python(root, str(marker["cpu"]), str(marker["python"]))
    code = bench.work / "payload"
    code.mkdir(exist_ok=True)
    return Place(str(marker["cpu"]), tuple(command), emulated_environment(write_payload(code)), 100)


def x86_without_vnni() -> Place:
    """This Python on an emulated CPU with AVX2 and FMA, and without AVX-512 and VNNI."""
    command = ("qemu-x86_64-static", "-cpu", "Haswell", sys.executable)
    return Place("haswell", command, {**os.environ, "PYTHONPATH": str(ROOT)}, 40)


def openvino_avx2() -> Place:
    """This machine, with oneDNN told to use nothing beyond AVX2."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ONEDNN_MAX_CPU_ISA": "AVX2"}
    return Place("avx2", (sys.executable,), environment, 200)


def _kept(bench: Bench, artifact: Artifact, where: str, settings: Settings, n: int) -> Path:
    folder = bench.work / "answers"
    folder.mkdir(exist_ok=True)
    named = "".join(f"-{key}={value}" for key, value in sorted(settings.items()))
    return folder / f"{sha256_file(artifact.path)[:16]}-{artifact.backend}-{where}{named}-{n}.npz"


def _read(file: Path) -> tuple[Logits, Any]:
    with np.load(file, allow_pickle=False) as stored:
        return stored["logits"], json.loads(str(stored["executed"]))
