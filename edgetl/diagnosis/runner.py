"""Reproducing a runner that prepares images wrongly: which mistake gives the logits that were seen?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from edgetl.base.errors import BackendError
from edgetl.base.progress import Progress, tracked
from edgetl.core.bundle import Bundle
from edgetl.core.findings import Finding
from edgetl.core.tensors import single
from edgetl.diagnosis.observations import DEPLOYED, Logits, Observations
from edgetl.inputs import preprocess_of
from edgetl.inputs.image import INTERPOLATIONS, MODES, Preprocess
from edgetl.inputs.pictures import decode
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import Session, open_session

Pixels = npt.NDArray[np.uint8]
Preparation = Callable[[Path], Pixels]
#: Images on which it is asked whether there is anything to explain, on which hypotheses are weighed, and on which
#: the best few are told apart.
SCREENED, WEIGHED, COMPARED = 6, 8, 24
KEPT = 6
#: Distance of logits, as a share of their spread, from which an explanation is looked for.
APART = 0.02
#: A hypothesis explains the answers if it is nearer to them than the right preparation by this factor, and on this
#: share of the images, and than any of another kind by the third. Runners that round the resized height in another way
#: than Pillow come to 0.2 to 0.45 of the right preparation's distance, on 23 of 24 images or all; wrong explanations
#: of a small mistake to 0.9 and more, on 15 of 24 at most.
EXPLAINS, NEARER, RIVAL = 0.55, 0.9, 0.7
#: Mean and standard deviation that runners use: of ImageNet, of Inception, none at all, CLIP's.
NORMALISATIONS: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "Inception's": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "no": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "CLIP's": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
#: Crop ratios in use: the network's size as a share of the shorter side after resizing.
RATIOS = (1.0, 0.975, 0.965, 0.95, 0.9, 0.882, 0.875, 0.85, 0.8, 0.75)


@dataclass(frozen=True)
class Hypothesis:
    """One way to prepare an image wrongly: the kind of fault, what is done, and doing it."""

    kind: str
    what: str
    prepare: Preparation


def hypotheses(preprocess: Preprocess) -> list[Hypothesis]:
    """Every mistake that is tried."""
    if (preprocess.mode, preprocess.channels) != ("shorter", "RGB"):
        return _redefined(preprocess)
    return [*_arrangements(preprocess), *_resizes(preprocess), *_crops(preprocess), *_normalisations(preprocess)]


def _redefined(right: Preprocess) -> list[Hypothesis]:
    """Another filter, another way to the network's size, the other order of channels: for any definition."""
    sides = (right.height, right.width)
    resize = {"shorter": max(sides), "squash": min(sides), "letterbox": max(sides), "longest": max(sides)}
    orders = {"RGB": "BGR", "BGR": "RGB"}
    changed = [
        ("interpolation", f"resizing by {name} instead of {right.interpolation}", replace(right, interpolation=name))
        for name in INTERPOLATIONS
        if name != right.interpolation
    ]
    changed += [
        ("preprocessing", f"resizing as {mode} instead of {right.mode}", replace(right, mode=mode, resize=resize[mode]))
        for mode in MODES
        if mode != right.mode
    ]
    if right.channels in orders:
        other = orders[right.channels]
        changed.append(("channel-order", f"feeding the channels as {other}", replace(right, channels=other)))
    return [Hypothesis(kind, what, made.apply) for kind, what, made in changed]


def _arrangements(right: Preprocess) -> list[Hypothesis]:
    shape = (right.height, right.width, 3)

    def planar(path: Path) -> Pixels:
        return right.apply(path).transpose(2, 0, 1).reshape(shape)

    def interleaved(path: Path) -> Pixels:
        return right.apply(path).reshape(3, right.height, right.width).transpose(1, 2, 0)

    found = [
        Hypothesis("channel-order", "feeding the channels as BGR", lambda path: right.apply(path)[..., ::-1]),
        Hypothesis("layout", "feeding planes (NCHW memory) where pixels (NHWC) are read", planar),
        Hypothesis("layout", "reading pixels (NHWC memory) as planes (NCHW)", interleaved),
    ]
    if right.height == right.width:
        turned = "feeding columns as rows"
        found.append(Hypothesis("layout", turned, lambda path: right.apply(path).transpose(1, 0, 2)))
    return found


def _resizes(right: Preprocess) -> list[Hypothesis]:
    others = [name for name in INTERPOLATIONS if name != right.interpolation]
    plain = [
        Hypothesis(
            "interpolation",
            f"resizing by {name} instead of {right.interpolation}",
            replace(right, interpolation=name).apply,
        )
        for name in others
    ]
    return plain + [
        Hypothesis(
            "interpolation",
            f"resizing by {name} without antialiasing",
            partial(_sampled, right, name),
        )
        for name in ("bilinear", "bicubic")
    ]


def _sampled(right: Preprocess, filter_: str, path: Path) -> Pixels:
    """As OpenCV and many a device resize: each new pixel from its nearest few old ones, however far apart they are."""
    image = decode(path)
    scale = min(image.size) / right.resize
    left = (int(image.width / scale) - right.width) // 2
    top = (int(image.height / scale) - right.height) // 2
    matrix = (scale, 0, left * scale, 0, scale, top * scale)
    resample = Pillow.Resampling[filter_.upper()]
    size = (right.width, right.height)
    return np.asarray(image.transform(size, Pillow.Transform.AFFINE, matrix, resample), np.uint8)


def _crops(right: Preprocess) -> list[Hypothesis]:
    side = max(right.height, right.width)
    lengths = {round(side / ratio): ratio for ratio in RATIOS} | {side + 32: side / (side + 32)}
    found = [
        Hypothesis(
            "crop-ratio",
            f"resizing to {length} pixels before the crop (ratio {ratio:.3f}) instead of {right.resize}",
            replace(right, resize=length).apply,
        )
        for length, ratio in sorted(lengths.items())
        if abs(length - right.resize) > 1
    ]
    size = (right.width, right.height)
    filter_ = Pillow.Resampling[right.interpolation.upper()]

    def squeezed(path: Path) -> Pixels:
        return np.asarray(decode(path).resize(size, filter_), np.uint8)

    def upright(path: Path) -> Pixels:
        with Pillow.open(path) as image:
            return right.apply(image.convert("RGB"))

    found.append(Hypothesis("crop-ratio", "squeezing the whole image instead of cropping it", squeezed))
    found.append(Hypothesis("preprocessing", "ignoring the orientation in the EXIF data", upright))
    return found + _crops_first(right, filter_)


def _crops_first(right: Preprocess, filter_: Pillow.Resampling) -> list[Hypothesis]:
    size = (right.width, right.height)

    def crop_first(box: tuple[int, int], then: int, path: Path) -> Pixels:
        cropped = _centre(decode(path), box)
        short = min(box)
        resized = cropped.resize((round(box[0] * then / short), round(box[1] * then / short)), filter_)
        return np.asarray(_centre(resized, size).resize(size, filter_), np.uint8)

    ways = {
        f"cropping {size[0]}x{size[1]} pixels of the raw image before resizing": (size, right.resize),
        f"cropping {size[0]}x{size[1]} pixels of the raw image and resizing no more": (size, min(size)),
        f"cropping {right.resize}x{right.resize} pixels of the raw image and resizing them": (
            (right.resize, right.resize),
            min(size),
        ),
    }
    return [
        Hypothesis("crop-before-resize", what, partial(crop_first, box, then)) for what, (box, then) in ways.items()
    ]


def _centre(image: Pillow.Image, size: tuple[int, int]) -> Pillow.Image:
    """The centre of an image; black where the image is too small, as torchvision does it."""
    left, top = ((own - wanted) // 2 for own, wanted in zip(image.size, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))


def _normalisations(right: Preprocess) -> list[Hypothesis]:
    mean, std = np.array(right.mean), np.array(right.std)

    def seen_through(other: tuple[tuple[float, ...], tuple[float, ...]], path: Path) -> Pixels:
        # The pixels that the right normalisation would turn into what the wrong one gives.
        wrong = (right.apply(path) / 255 - np.array(other[0])) / np.array(other[1])
        return np.asarray(np.clip(np.rint(255 * (wrong * std + mean)), 0, 255), np.uint8)

    found = [
        Hypothesis(
            "normalisation",
            f"normalising by {name} mean and standard deviation",
            partial(seen_through, other),
        )
        for name, other in NORMALISATIONS.items()
        if np.abs(np.array(other) - np.array([mean, std])).max() > 0.01
    ]
    twice = "normalising before the graph does so again"

    def again(path: Path) -> Pixels:
        once = (right.apply(path) / 255 - mean) / std
        return np.asarray(np.clip(np.rint(once), 0, 255), np.uint8)

    return [*found, Hypothesis("normalisation", twice, again)]


def reproduce(bundle: Bundle, seen: Observations, progress: Progress) -> tuple[Finding, ...]:
    """Run the bundle's own artifact on images prepared wrongly in each way; name the one that gives what was seen."""
    observed = seen.logits[DEPLOYED]
    rows = _spread(seen.paths, COMPARED)
    simulated = seen.simulated
    if simulated is None:
        simulated = bundle.manifest.target.executes_on_host() == "simulated"
    if len(rows) < SCREENED:
        return ()
    try:
        session = open_session(bundle.artifact(), threads=2, simulated=simulated)
    except BackendError:
        return ()
    with closing(session):
        return tuple(_explained(preprocess_of(bundle), session, seen.paths, observed, rows, progress))


def _spread(paths: Sequence[Path], most: int) -> list[int]:
    """Rows of images that are there, spread over all."""
    if not paths:
        return []
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))
    return [row for row in chosen.tolist() if paths[row].is_file()]


def _explained(
    right: Preprocess,
    session: Session,
    paths: Sequence[Path],
    observed: Logits,
    rows: list[int],
    progress: Progress,
) -> list[Finding]:
    def squares(prepare: Preparation, count: int) -> npt.NDArray[np.float64]:
        chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
        images = (np.ascontiguousarray(prepare(paths[row]))[None] for row in chosen)
        logits = np.concatenate([single(infer(session, {session.inputs[0].name: image})) for image in images])
        spread = max(float(observed.std()), 1e-12)
        apart = (logits.astype(np.float64) - observed[chosen]) / spread
        return np.asarray((apart**2).mean(axis=1))

    def distance(prepare: Preparation, count: int) -> float:
        return float(np.sqrt(squares(prepare, count).mean()))

    if distance(right.apply, SCREENED) < APART:
        return []
    tried = tracked(hypotheses(right), "reproducing the runner's mistake", progress)
    weighed = sorted(((distance(h.prepare, WEIGHED), h) for h in tried), key=lambda pair: pair[0])
    of_right = squares(right.apply, COMPARED)
    healthy = float(np.sqrt(of_right.mean()))
    rival = next(h for _, h in weighed if h.kind != weighed[0][1].kind)
    kept = dict.fromkeys([h for _, h in weighed[:KEPT]] + [rival])
    compared = {h: squares(h.prepare, COMPARED) for h in kept}
    final = sorted(((float(np.sqrt(found.mean())), h) for h, found in compared.items()), key=lambda pair: pair[0])
    nearest, best = final[0]
    away, other = min(((d, h) for d, h in final if h.kind != best.kind), key=lambda pair: pair[0])
    nearer = float((compared[best] < of_right).mean())
    if nearest > EXPLAINS * healthy or nearer < NEARER:
        return []
    figures = {"distance": nearest, "healthy": healthy, "runner_up": away, "nearer": nearer}
    if nearest >= RIVAL * away:
        what = f"The runner's answers are those of {best.what}, or of {other.what}: either explains them."
        return [Finding("preprocessing", what, evidence=figures)]
    what = (
        f"The runner's answers are those of {best.what}: {nearest:.3f} of the logits' spread away from them, against "
        f"{healthy:.3f} for the right preparation and {away:.3f} for the next best explanation."
    )
    return [Finding(best.kind, what, evidence=figures)]
