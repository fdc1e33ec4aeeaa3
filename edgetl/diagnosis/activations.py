"""The artifact's activation ranges against those of images, of noise and of single classes.

For the recipes' own estimators the comparison needs no luck: extremes of all calibration images cannot be narrower than
those of some of them, and a mean over all differs little from a mean over some.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.storage import sha256_file
from edgetl.compress.layers.points import Point
from edgetl.compress.layers.topology import Topology
from edgetl.core.bundle import Bundle
from edgetl.core.compression import NETWORK_INPUT
from edgetl.core.findings import Finding
from edgetl.core.tensors import Arrays
from edgetl.diagnosis.extremes import Extremes, extremes
from edgetl.inputs import Preprocess, input_of, kind_of

Samples = Sequence[Arrays]
Array = npt.NDArray[np.float64]
#: Images, of those that the record names, on which ranges are looked at; and of noise, and of each class.
LOOKED_AT, NOISE, OF_A_CLASS = 24, 16, 8
#: A range is too narrow below this logarithm, by estimator. Honest exports of Lite0 came down to -0.01 and -0.10.
NARROW: Mapping[str, float] = {"min-max": -0.1, "mean-min-max": -0.25}
#: Other estimators cut on purpose: there a range is too narrow if it also cuts off this share of the values.
NARROW_OTHERWISE, CUT = -0.7, 0.02
#: A range is too wide above this logarithm; honest ones of 128 images exceeded those of 24 by up to 0.6.
WIDE = 1.5
#: The same, by estimator, where all images that the record names were looked at: honest ones came up to 0.01 and, as
#: NNCF gives the operands of an addition one range, 0.30 for one range in 50. No more images than this are looked at.
EXACT: Mapping[str, float] = {"min-max": 0.1, "mean-min-max": 0.4}
ALL = 256
#: So many ranges must be off, and this share of all.
FEWEST, SHARE = 3, 0.05
#: A halved type: the median of ranges that are never negative, their spread, and the mean share of values cut off,
#: for estimators that cut nothing and for those that do.
HALVED, EVEN, LOST, LOST_OTHERWISE = -0.7, 0.35, 0.0005, 0.01
#: Another origin of the ranges explains them if it leaves at most this share of the deviation.
EXPLAINS_NOISE, EXPLAINS_CLASS = 0.7, 0.5
#: Noise also gives ranges that are too wide. Beyond this mean deviation it is asked whether it explains them, and it
#: has to leave no more than this share.
SUSPECT, EXPLAINS_WIDE = 0.15, 0.4
#: The estimator of another tool, which may widen ranges by itself: NNCF's mixed preset, on digits, by 0.47 octaves, of
#: which uniform noise left 0.36. Ranges that did come from noise left at most 0.19.
UNKNOWN, EXPLAINS_UNKNOWN = "unknown", 0.25
#: With more classes than this, none is tried by itself.
MOST_CLASSES = 20


@dataclass(frozen=True)
class Scene:
    """What ranges are compared in: the float graph, the quantized activations, the estimator, and the images."""

    bundle: Bundle
    topology: Topology
    points: tuple[Point, ...]
    estimator: str
    root: Path

    @property
    def samples(self) -> str:
        """What the ranges are compared with, in words."""
        noun = kind_of(self.bundle).noun
        return f"the run's own {noun}s" if self.estimator == UNKNOWN else f"the {noun}s that calibration.json names"

    def seen(self, samples: Samples) -> Extremes | None:
        """Extremes under some samples."""
        return extremes(self.topology, self.points, samples)


def audit_activations(bundle: Bundle, points: Sequence[Point], topology: Topology, root: Path) -> tuple[Finding, ...]:
    """Compare the grids of ``points`` with what the calibration images under ``root`` give in the float graph."""
    quantized = tuple(point for point in points if point.grid is not None)
    recipe = (bundle.manifest.quantization and bundle.manifest.quantization.recipe) or {}
    if not quantized:
        return ()
    # How another tool estimates is not known: ranges are then judged as those of estimators that cut on purpose.
    scene = Scene(bundle, topology, quantized, str(recipe.get("estimator", UNKNOWN)), root)
    seen = scene.seen(_claimed(bundle, root))
    return () if seen is None else tuple(_judged(scene, seen))


def _claimed(bundle: Bundle, root: Path) -> list[Arrays]:
    """Images that the ranges are said to come from; others of the run's where those are not to be had."""
    held = [(s.path, s.sha256) for split in ("calibration", "search") for s in bundle.dataset.split(split)]
    for entries in (_listed(bundle), held):
        count = min(LOOKED_AT, len(entries))
        chosen = [entries[i] for i in np.unique(np.linspace(0, len(entries) - 1, count).round().astype(int))]
        files = [root / path for path, digest in chosen if _is(root / path, digest)]
        if files:
            return [input_of(bundle).feeds(file) for file in files]
    return []


def _listed(bundle: Bundle) -> list[tuple[str, str]]:
    """Path and hash of the images that the record names."""
    return [(sample.path, sample.sha256) for sample in bundle.calibration.samples]


def _is(file: Path, digest: str) -> bool:
    return file.is_file() and sha256_file(file) == digest


def _judged(scene: Scene, seen: Extremes) -> Iterator[Finding]:
    room = seen.room(scene.estimator)
    off = _off(room, seen.outside, scene.estimator)
    deviation = float(np.abs(room).mean())
    if not _many(off):
        off = off | _too_wide_for_all(scene, room)
    if not _many(off):
        yield from _too_wide(scene, room, deviation)
        return
    if (kept := _halved(room, seen, scene.estimator)) is not None:
        lost = float(seen.outside[kept].mean())
        what = (
            f"{len(kept)} activations have {2 ** float(np.median(room[kept])):.2f} of the range that they need, and "
            f"{lost:.1%} of their values are cut off, as by a scale for unsigned numbers in a signed type."
        )
        yield Finding("saturation", what, *_named(scene, room, kept))
        return
    shown = f"{int(off.sum())} of {len(room)} activation ranges do not fit {scene.samples}"
    worst = [int(i) for i in np.argsort(-np.abs(room)) if off[i]]
    layers, evidence = _named(scene, room, worst)
    evidence |= {"deviation": round(deviation, 3)}
    for kind, origin, left in _origins(scene, deviation):
        what = f"{shown}; they fit {origin} (mean deviation {left:.2f} octaves instead of {deviation:.2f})."
        yield Finding(kind, what, layers, {**evidence, "explained": round(left, 3)})
        return
    what = (
        f"{shown}, nor noise, nor any one class: by {deviation:.2f} octaves in the mean, "
        f"{room[worst[0]]:+.2f} at worst."
    )
    yield Finding("calibration-stale", what, layers, evidence)


def _many(off: npt.NDArray[np.bool_]) -> bool:
    return bool(off.sum() >= max(FEWEST, SHARE * len(off)))


def _too_wide_for_all(scene: Scene, room: Array) -> npt.NDArray[np.bool_]:
    """Which ranges are wider than all the images that the record names make them; none where some are missing.

    Another model's ranges may hold this model's with room to spare. Only what seems too wide for some of the images
    is looked at under all of them.
    """
    limit = EXACT.get(scene.estimator, WIDE)
    wide, entries = room > limit, _listed(scene.bundle)
    files = [scene.root / path for path, _ in entries]
    none = np.zeros(len(room), np.bool_)
    whole = len(files) <= ALL and all(_is(file, digest) for file, (_, digest) in zip(files, entries, strict=True))
    if scene.estimator not in EXACT or not _many(wide) or not whole:
        return none
    points = [scene.points[i] for i in np.flatnonzero(wide)]
    seen = extremes(scene.topology, points, (input_of(scene.bundle).feeds(file) for file in files))
    if seen is not None:
        none[wide] = seen.room(scene.estimator) > limit
    return none


def _too_wide(scene: Scene, room: Array, deviation: float) -> Iterator[Finding]:
    if deviation <= SUSPECT:
        return
    name, left = _nearest_noise(scene)
    if left <= (EXPLAINS_UNKNOWN if scene.estimator == UNKNOWN else EXPLAINS_WIDE) * deviation:
        what = (
            f"The activation ranges are wider than {scene.samples} need, by {deviation:.2f} octaves in the mean; they "
            f"fit {name} (mean deviation {left:.2f} octaves)."
        )
        worst = [int(i) for i in np.argsort(-np.abs(room))[:10]]
        layers, evidence = _named(scene, room, worst)
        deviations = {"deviation": round(deviation, 3), "explained": round(left, 3)}
        yield Finding("calibration-noise", what, layers, evidence | deviations)


def _nearest_noise(scene: Scene) -> tuple[str, float]:
    left = {name: _deviation(scene, noise) for name, noise in _noises(scene).items()}
    nearest = min(left, key=lambda name: left[name], default="")
    return nearest, left.get(nearest, float("inf"))


def _off(room: Array, outside: Array, estimator: str) -> npt.NDArray[np.bool_]:
    limit = NARROW.get(estimator)
    narrow = room < limit if limit is not None else (room < NARROW_OTHERWISE) & (outside > CUT)
    return np.asarray(narrow | (room > WIDE))


def _halved(room: Array, seen: Extremes, estimator: str) -> list[int] | None:
    """Activations whose ranges were all made too small alike; None if they were not."""
    lost = LOST if estimator in NARROW else LOST_OTHERWISE
    for chosen in (seen.positive, np.ones(len(room), np.bool_)):
        if chosen.sum() < FEWEST:
            continue
        low, middle, high = np.quantile(room[chosen], [0.25, 0.5, 0.75])
        if middle <= HALVED and high - low <= EVEN and float(seen.outside[chosen].mean()) >= lost:
            return [int(i) for i in np.flatnonzero(chosen)]
    return None


def _named(scene: Scene, room: Array, chosen: Sequence[int]) -> tuple[tuple[str, ...], dict[str, object]]:
    """The layers that make the activations, and each one's deviation."""
    modules = {point.node: point.module or point.node for point in scene.points}
    makers = [modules.get(scene.points[i].producer, NETWORK_INPUT) for i in chosen]
    octaves = {scene.points[i].source: round(float(room[i]), 2) for i in chosen[:10]}
    return tuple(dict.fromkeys(makers)), {"octaves": octaves, "activations": len(chosen), "of": len(room)}


def _origins(scene: Scene, deviation: float) -> Iterator[tuple[str, str, float]]:
    """Kinds of calibration that explain the ranges: kind, words, and the mean deviation that they leave."""
    nearest, remains = _nearest_noise(scene)
    if remains <= EXPLAINS_NOISE * deviation:
        yield "calibration-noise", nearest, remains
    dataset = scene.bundle.dataset
    if len(dataset.classes) > MOST_CLASSES:
        return
    left = {}
    for label, name in enumerate(dataset.classes):
        files = [scene.root / s.path for s in dataset.split("calibration") if s.label == label]
        samples = [input_of(scene.bundle).feeds(file) for file in files[:OF_A_CLASS] if file.is_file()]
        if len(samples) > 2:
            left[name] = _deviation(scene, samples)
    if left and min(left.values()) <= EXPLAINS_CLASS * deviation:
        best = min(left, key=lambda name: left[name])
        yield "calibration-one-class", f"samples of the class '{best}' alone", left[best]


def _deviation(scene: Scene, samples: Samples) -> float:
    seen = scene.seen(samples)
    return float("inf") if seen is None else float(np.abs(seen.room(scene.estimator)).mean())


def _noises(scene: Scene) -> dict[str, Samples]:
    """Noise of a few kinds; none where the network sees no images, of whose noise nothing is known."""
    preprocess = input_of(scene.bundle)
    if not isinstance(preprocess, Preprocess):
        return {}
    draw = np.random.default_rng(0)
    shape = (1, *(size or 1 for size in preprocess.tensors[0].shape[1:]))
    normal = [np.clip(draw.normal(127, 50, shape), 0, 255) for _ in range(NOISE)]
    noises: dict[str, list[npt.NDArray[Any]]] = {
        "uniform noise": [draw.integers(0, 256, shape) for _ in range(NOISE)],
        "normal noise": normal,
        "almost black noise": [draw.integers(0, 2, shape) for _ in range(NOISE // 2)],
    }
    return {name: [{"image": noise.astype(np.uint8)} for noise in each] for name, each in noises.items()}
