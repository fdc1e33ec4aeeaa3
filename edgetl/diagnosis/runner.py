"""Reproducing a runner that prepares images wrongly: which mistake gives the logits that were seen?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.base.progress import Progress, tracked
from edgetl.core.bundle import Bundle
from edgetl.core.findings import Finding
from edgetl.core.tensors import packed
from edgetl.diagnosis.hypotheses import Preparation, hypotheses
from edgetl.diagnosis.observations import DEPLOYED, Logits, Observations
from edgetl.inputs import preprocess_of
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import open_session

#: What a model answers to an image file: float (1, width).
Answer = Callable[[Path], npt.NDArray[np.floating]]
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


@dataclass(frozen=True)
class Suspect:
    """One explanation: the kind of fault, what was done, and what it answers to an image file."""

    kind: str
    what: str
    answer: Answer


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
    right = preprocess_of(bundle)

    def through(prepare: Preparation) -> Answer:
        def answer(path: Path) -> npt.NDArray[np.floating]:
            image = np.ascontiguousarray(prepare(path))[None]
            return packed(infer(session, {session.inputs[0].name: image}))

        return answer

    with closing(session):
        suspects = [Suspect(h.kind, h.what, through(h.prepare)) for h in hypotheses(right)]
        files = [seen.paths[row] for row in rows]
        found = explained(through(right.apply), suspects, files, observed[rows], "The runner's answers", progress)
    return (found,) if found is not None else ()


def _spread(paths: Sequence[Path], most: int) -> list[int]:
    """Rows of images that are there, spread over all."""
    if not paths:
        return []
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))
    return [row for row in chosen.tolist() if paths[row].is_file()]


@dataclass(frozen=True)
class _Distances:
    """How far answers are from those that were seen, as a share of these ones' spread."""

    paths: Sequence[Path]
    observed: Logits

    def squares(self, answer: Answer, count: int) -> npt.NDArray[np.float64]:
        """Of some images, evenly chosen."""
        rows = np.linspace(0, len(self.paths) - 1, min(count, len(self.paths))).astype(int)
        logits = np.concatenate([answer(self.paths[row]) for row in rows])
        spread = max(float(self.observed.std()), 1e-12)
        apart = (logits.astype(np.float64) - self.observed[rows]) / spread
        return np.asarray((apart**2).mean(axis=1))

    def of(self, answer: Answer, count: int) -> float:
        """Root mean square of all."""
        return float(np.sqrt(self.squares(answer, count).mean()))


def explained(
    right: Answer,
    suspects: Sequence[Suspect],
    paths: Sequence[Path],
    observed: npt.NDArray[np.floating],
    whose: str,
    progress: Progress,
) -> Finding | None:
    """The suspect whose answers are those that were seen, clearly nearer than the right ones and all of other kinds.

    Args:
        right: what should have been answered.
        suspects: what may have been done instead, of two kinds at least.
        paths: image files.
        observed: what was answered to them, (n, width).
        whose: answers, as the subject of a sentence.
        progress: told of each suspect.

    Returns:
        None where what was seen is right, or nothing explains it.
    """
    seen = _Distances(paths, observed)
    if seen.of(right, SCREENED) < APART:
        return None
    tried = tracked(suspects, "reproducing the mistake", progress)
    weighed = sorted(((seen.of(s.answer, WEIGHED), s) for s in tried), key=lambda pair: pair[0])
    of_right = seen.squares(right, COMPARED)
    healthy = float(np.sqrt(of_right.mean()))
    rival = next(s for _, s in weighed if s.kind != weighed[0][1].kind)
    kept = list(dict.fromkeys([s for _, s in weighed[:KEPT]] + [rival]))
    compared = [(seen.squares(s.answer, COMPARED), s) for s in kept]
    final = sorted(((float(np.sqrt(found.mean())), found, s) for found, s in compared), key=lambda item: item[0])
    nearest, squares, best = final[0]
    away, other = min(((d, s) for d, _, s in final if s.kind != best.kind), key=lambda pair: pair[0])
    nearer = float((squares < of_right).mean())
    if nearest > EXPLAINS * healthy or nearer < NEARER:
        return None
    figures = {"distance": nearest, "healthy": healthy, "runner_up": away, "nearer": nearer}
    if nearest >= RIVAL * away:
        what = f"{whose} are those of {best.what}, or of {other.what}: either explains them."
        return Finding("preprocessing", what, evidence=figures)
    what = (
        f"{whose} are those of {best.what}: {nearest:.3f} of the logits' spread away from them, against "
        f"{healthy:.3f} for the right preparation and {away:.3f} for the next best explanation."
    )
    return Finding(best.kind, what, evidence=figures)
