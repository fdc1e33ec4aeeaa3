"""Data sets of the tasks that are measured: several labels, a number, spectrograms, a table, sentences."""

from __future__ import annotations

import csv
import wave
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

Floats = npt.NDArray[np.float32]
#: Parts of the samples that each split gets.
SHARES = {"train": 0.45, "val": 0.1, "calibration": 0.07, "search": 0.08, "certify": 0.3}
#: A spoken digit: seconds kept, samples a second, samples of a window, of a step, mel bands.
SECONDS, RATE, WINDOW, STEP, BANDS = 0.64, 8000, 256, 128, 40


def write_rows(file: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """A CSV file; returns its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
    return file


def several_digits(folder: Path, count: int = 2400, seed: int = 0) -> Path:
    """Pictures of 64 pixels with one to four of scikit-learn's digits each, and which; splits on disjoint digits."""
    bunch, rng = load_digits(), np.random.default_rng(seed)
    order = rng.permutation(len(bunch.target))
    ends = (np.cumsum(list(SHARES.values())) * len(order)).round().astype(int)
    pools = dict(zip(SHARES, np.split(order, ends[:-1]), strict=True))
    rows = []
    for split, share in SHARES.items():
        for number in range(round(share * count)):
            canvas = np.zeros((64, 64), np.uint8)
            chosen = rng.choice(pools[split], rng.integers(1, 5), replace=False)
            for place, index in zip(rng.permutation(4), chosen, strict=False):
                top, left = 32 * (place // 2) + rng.integers(0, 9), 32 * (place % 2) + rng.integers(0, 9)
                digit = np.kron(bunch.images[index] * 255 / 16, np.ones((3, 3))).astype(np.uint8)
                canvas[top : top + 24, left : left + 24] = np.maximum(canvas[top : top + 24, left : left + 24], digit)
            name = f"{split}/{number:04d}.png"
            (folder / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(canvas).save(folder / name)
            rows.append((name, "|".join(map(str, sorted(set(bunch.target[chosen].tolist())))), split))
    return write_rows(folder / "digits.csv", ("path", "labels", "split"), rows)


def red_cells(folder: Path, shared: Path) -> Path:
    """Red cells in each picture of blood, a number."""
    labels = shared / "regression-bccd-count" / "labels.csv"
    with labels.open(newline="", encoding="utf-8") as stream:
        rows = [((labels.parent / row["path"]).resolve(), row["target"]) for row in csv.DictReader(stream)]
    return write_rows(folder / "cells.csv", ("path", "target"), rows)


def log_mel(sound: npt.NDArray[np.int16]) -> Floats:
    """Logarithm of the energy in mel bands, float32 (bands, steps), of one spoken digit; silence fills it up."""
    kept = np.zeros(round(SECONDS * RATE), np.float64)
    kept[: len(sound)] = sound[: len(kept)] / 32768
    starts = range(0, len(kept) - WINDOW + 1, STEP)
    frames = np.stack([kept[start : start + WINDOW] * np.hanning(WINDOW) for start in starts])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    return np.asarray(np.log(_bands() @ power.T + 1e-6), np.float32)


def _bands() -> npt.NDArray[np.float64]:
    """Triangular filters (bands, frequencies), evenly spaced in mel (O'Shaughnessy 1987)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    return np.asarray(np.maximum(0, np.minimum(rising, falling)))


def spectrograms(folder: Path, shared: Path) -> Iterator[tuple[str, Path, int]]:
    """Spectrograms of spoken digits, written as an array file each: its path, the recording and its samples."""
    for file in sorted((shared / "audio-fsdd").glob("*/*.wav")):
        with wave.open(str(file)) as sound:
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        place = folder / file.parent.name / f"{file.stem}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, log_mel(samples)[None])
        yield place.relative_to(folder).as_posix(), file, len(samples)


def spoken_digits(folder: Path, shared: Path) -> Path:
    """Spectrograms of spoken digits, an array file each, with the digit."""
    rows = [(path, f"digit {file.parent.name}") for path, file, _ in spectrograms(folder, shared)]
    return write_rows(folder / "spoken.csv", ("path", "label"), rows)


def table(folder: Path, kind: str) -> Path:
    """Rows of a table of scikit-learn's: ``breast-cancer`` (two classes) or ``diabetes`` (a number)."""
    bunch = load_breast_cancer() if kind == "breast-cancer" else load_diabetes(scaled=False)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{kind}.npz"
    name = "y" if kind == "breast-cancer" else "target"
    np.savez(file, **{"x": bunch.data.astype(np.float32), name: bunch.target})
    return file


def sentences(folder: Path, shared: Path, kind: str, train: int | None = None, seed: int = 0) -> Path:
    """SST-2 or TREC: the authors' training sentences in four splits, their test sentences to certify on.

    Args:
        folder: where the CSV file goes.
        shared: the folder of real data sets.
        kind: ``sst2`` or ``trec``.
        train: how many of the training sentences are used; all when None.
        seed: of the draw.
    """
    held = ["dev", "test"] if kind == "sst2" else ["test"]
    rng = np.random.default_rng(seed)
    rows = _sentences(shared / f"text-{kind}" / "train.csv")
    chosen = [rows[i] for i in rng.permutation(len(rows))[:train]]
    ends = (np.array([0.75, 0.9, 0.95]) * len(chosen)).round().astype(int)
    parts = np.split(np.arange(len(chosen)), ends)
    named = zip(("train", "val", "calibration", "search"), parts, strict=True)
    listed = [(*chosen[i], split) for split, part in named for i in part]
    for part in held:
        listed += [(*row, "certify") for row in _sentences(shared / f"text-{kind}" / f"{part}.csv")]
    first = {text: (text, label, split) for text, label, split in reversed(listed)}
    return write_rows(folder / f"{kind}.csv", ("text", "label", "split"), reversed(list(first.values())))


def _sentences(file: Path) -> list[tuple[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return [(row["text"], row["label"]) for row in csv.DictReader(stream)]
