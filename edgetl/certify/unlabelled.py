"""What two models answered to samples without labels, and the labels that were given since: ``agreement.npz``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError, UnknownNameError
from edgetl.certify.agreement import AgreementTest, agreement_test, same
from edgetl.certify.archive import read_archive, write_archive
from edgetl.certify.binomial import mcnemar_loss
from edgetl.certify.classes import holm
from edgetl.core.agreement import Agreement
from edgetl.core.tensors import Arrays
from edgetl.tasks import Task, find_task
from edgetl.tasks.logits import sigmoid, softmax

Array = npt.NDArray[Any]
AGAIN = "compare them again: edgetl verify BUNDLE --images FOLDER"
#: Kind of label → name of the answer that says whether a sample is right.
_ANSWER: Mapping[str, str] = {"class": "class", "classes": "present"}
#: Number keys of a keyboard, but for 0.
KEYS = 9
#: Arrays of a sample each.
_ARRAYS = ("reference", "deployed", "offered", "loss", "gain", "labels", "known")
#: Why files are left out, as they are stored and in words; in this order.
LEFT_OUT: Mapping[str, str] = {
    "seen": "that the model was trained, validated, calibrated or searched on",
    "copies": "that are copies of others",
    "unusable": "that cannot be read",
}


def comparable(task: Task, metric: str | None) -> str:
    """The metric that samples without labels can be judged by: the share of right ones.

    Raises:
        CertifyError: the task, or the metric that was named, is not told by which answers are the same.
    """
    if task.parts:
        what = "samples without labels cannot certify several tasks at once"
        raise CertifyError(what, "certify labelled ones: edgetl verify BUNDLE --data FOLDER")
    if task.exact is None:
        what = (
            f"samples without labels cannot certify {task.name}: two numbers are hardly ever equal, and how much of "
            "their difference is a loss depends on every label"
        )
        raise CertifyError(what, "certify labelled samples: edgetl verify BUNDLE --data FOLDER")
    wanted = task.exact if metric is None else task.find_metric(metric)
    if wanted != task.exact:
        what = f"{task.metrics[wanted].title} takes the labels of all samples, not only of those on which models differ"
        raise CertifyError(what, f"leave --metric out, which is {task.exact} then, or give labelled samples: --data")
    return wanted


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Samples without labels, and what the two models answered.

    Attributes:
        task: key of :data:`edgetl.tasks.TASKS`.
        class_names: of the classes or labels.
        paths: of the samples below the folder that was given, with forward slashes.
        sha256: of their files.
        reference, deployed: answers: class indexes int64 [n], or indicators bool [n, labels].
        offered: class indexes int64 [n, at most nine] to offer to whoever labels a sample: both models' answers and
            what else is probable, in the order of the classes, which does not tell one from the other.
        loss, gain: how probable it is that only the reference, or only the deployed model, is right, by the mean of
            both models' probabilities, float32 [n].
        answered_by: what answered in the reference's place.
        left_out: files that were not compared, how many by why, keys of :data:`LEFT_OUT`.
        labels: as the answers are; meaningless where not ``known``.
        known: which samples have a label, bool [n].

    Raises:
        CertifyError: arrays of unequal lengths, or an index without a name.
    """

    task: str
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    reference: Array
    deployed: Array
    offered: npt.NDArray[np.int64]
    loss: npt.NDArray[np.float32]
    gain: npt.NDArray[np.float32]
    answered_by: str
    left_out: Mapping[str, int]
    labels: Array
    known: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        comparable(find_task(self.task), None)
        n, width = len(self.paths), len(self.class_names)
        shape, kinds = ((n,), "iu") if self._several is False else ((n, width), "b")
        answers = (self.reference, self.deployed, self.labels)
        fits = all(array.shape == shape and array.dtype.kind in kinds for array in answers)
        others = (self.loss, self.gain, self.known)
        if not n or not fits or len(self.sha256) != n or any(array.shape != (n,) for array in others):
            raise CertifyError("its arrays do not fit each other", AGAIN)
        if not self._several and not all(((array >= 0) & (array < width)).all() for array in answers):
            raise CertifyError("it holds an index of no class", AGAIN)
        if self.offered.ndim != 2 or len(self.offered) != n or not ((self.offered >= 0) & (self.offered < width)).all():
            raise CertifyError("it offers no classes", AGAIN)
        if (self.known & self.agreed).any():
            raise CertifyError("a sample has a label on which both models agree", AGAIN)

    @property
    def _several(self) -> bool:
        return find_task(self.task).labels == "classes"

    @classmethod
    def of(
        cls,
        task: Task,
        classes: Sequence[str],
        files: Sequence[tuple[str, str]],
        outputs: tuple[Arrays, Arrays],
        answered_by: str,
        left_out: Mapping[str, int],
    ) -> Unlabelled:
        """What the outputs of the reference and of the deployed model say of files, each with its path and SHA-256."""
        decoded = tuple(task.decode(given, task.options) for given in outputs)
        reference, deployed = (answers[_ANSWER[task.labels]] for answers in decoded)
        mean = np.mean([_SHARES[task.labels](answers["logits"]) for answers in decoded], axis=0)
        loss, gain = (_CHANCES[task.labels](mean, answers) for answers in (reference, deployed))
        offered = _offered(mean, reference, deployed)
        return cls(
            task=task.name,
            class_names=tuple(classes),
            paths=tuple(path for path, _ in files),
            sha256=tuple(digest for _, digest in files),
            reference=reference,
            deployed=deployed,
            offered=offered,
            loss=loss,
            gain=gain,
            answered_by=answered_by,
            left_out=dict(left_out),
            labels=np.zeros_like(reference),
            known=np.zeros(len(files), bool),
        )

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.paths)

    @cached_property
    def agreed(self) -> npt.NDArray[np.bool_]:
        """Whether the two answers are the same, bool [n]."""
        return same(self.reference, self.deployed)

    def labelled(self, given: Mapping[int, Any]) -> Unlabelled:
        """With labels of some samples, by their positions, in the place of all earlier ones."""
        labels, known = np.zeros_like(self.labels), np.zeros(self.n, bool)
        for row, label in given.items():
            labels[row], known[row] = label, True
        return replace(self, labels=labels, known=known)

    def tested(self, margin: float, alpha: float, rests_on: int) -> tuple[AgreementTest, Agreement]:
        """The test, and the counts that it rests on.

        Args:
            margin: greatest acceptable loss, a fraction.
            alpha: one-sided level.
            rests_on: labelled samples of the certify split.
        """
        before, after = (same(answers, self.labels) & self.known for answers in (self.reference, self.deployed))
        disagreed, labelled = int((~self.agreed).sum()), int(self.known.sum())
        lost, gained = int((before & ~after).sum()), int((~before & after).sum())
        test = agreement_test(self.n, disagreed, lost, gained, labelled, margin=margin, alpha=alpha)
        return test, Agreement(
            disagreed=disagreed,
            rate_high=test.rate_high,
            labelled=labelled,
            lost=lost,
            gained=gained,
            reference=self.answered_by,
            left_out={LEFT_OUT[why]: self.left_out.get(why, 0) for why in LEFT_OUT if self.left_out.get(why)},
            rests_on=rests_on,
            lost_classes=self._lost_classes(alpha),
        )

    def _lost_classes(self, alpha: float) -> tuple[str, ...]:
        """Classes that lost more labelled samples than chance explains: exact McNemar tests, adjusted by Holm."""
        task, chosen = find_task(self.task), np.flatnonzero(self.known)
        if task.by_class is None or not len(chosen):
            return ()
        # Its evidence asks for logits, too, which tell nothing of classes.
        blank = np.zeros((len(chosen), len(self.class_names)))
        both = [
            task.evidence({"logits": blank, _ANSWER[task.labels]: answers[chosen]}, self.labels[chosen])
            for answers in (self.reference, self.deployed)
        ]
        counts = task.by_class(both[0], both[1], len(self.class_names))
        moved = np.flatnonzero(counts.lost + counts.gained > 0)
        adjusted = holm(mcnemar_loss(counts.lost[moved], counts.gained[moved]))
        return tuple(self.class_names[index] for index, p in zip(moved, adjusted, strict=True) if p < alpha)

    def asked(self, margin: float, alpha: float) -> list[int]:
        """Positions of the samples on which the two differ, in the order in which their labels decide soonest.

        A pass is decided by samples that turn out not to be lost, a fail by those that are. Which of the two is to be
        expected follows from both models' probabilities; the test holds in any order.
        """
        rows = np.flatnonzero(~self.agreed)
        if not len(rows):
            return []
        lost, gained = (round(float(chance[rows].sum())) for chance in (self.loss, self.gain))
        lost = min(lost, len(rows))
        gained = min(gained, len(rows) - lost)
        expected = agreement_test(self.n, len(rows), lost, gained, len(rows), margin=margin, alpha=alpha)
        sign = 1 if expected.verdict == "pass" else -1
        return [int(row) for row in rows[np.argsort(sign * (self.loss - self.gain)[rows], kind="stable")]]

    def save(self, path: Path) -> None:
        """Write it whole or not at all; equal content gives equal bytes.

        Raises:
            EdgetlError: the folder is read-only or the disk is full.
        """
        words = {name: np.array(getattr(self, name)) for name in ("task", "answered_by")}
        texts = {name: np.array(getattr(self, name), dtype="<U") for name in ("class_names", "paths", "sha256")}
        left_out = np.array([self.left_out.get(why, 0) for why in LEFT_OUT], dtype=np.int64)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        write_archive(path, {**words, **texts, **arrays, "left_out": left_out})

    @classmethod
    def load(cls, path: Path) -> Unlabelled:
        """Read what :meth:`save` wrote.

        Raises:
            CertifyError: the file is missing, truncated, altered or something else.
        """
        try:
            held = read_archive(path)
            fields: dict[str, Any] = {name: held[name] for name in _ARRAYS}
            fields |= {name: tuple(map(str, held[name].tolist())) for name in ("class_names", "paths", "sha256")}
            fields |= {name: str(held[name]) for name in ("task", "answered_by")}
            return cls(**fields, left_out=dict(zip(LEFT_OUT, map(int, held["left_out"].tolist()), strict=True)))
        except (KeyError, TypeError, ValueError, UnknownNameError, CertifyError) as error:
            why = error.what if isinstance(error, CertifyError) else str(error)
            raise CertifyError(f"the answers in {path} are of another version or none ({why})", AGAIN) from error


def _of_class(mean: Array, answer: Array) -> npt.NDArray[np.float32]:
    """How probable each answer is, by the mean of both models' probabilities."""
    return np.asarray(mean[np.arange(len(mean)), answer], np.float32)


def _of_classes(mean: Array, answer: Array) -> npt.NDArray[np.float32]:
    """The same of a set of labels, as if each came by itself."""
    return np.asarray(np.where(answer, mean, 1 - mean).prod(axis=1), np.float32)


def _offered(mean: Array, reference: Array, deployed: Array) -> npt.NDArray[np.int64]:
    """The classes that are most probable, those on which the models differ before all others; in order."""
    width = mean.shape[1]
    if reference.ndim == 1:
        differs = np.eye(width, dtype=bool)[reference] | np.eye(width, dtype=bool)[deployed]
    else:
        differs = reference != deployed
    first = np.argsort(-(mean + differs), axis=1, kind="stable")[:, :KEYS]
    return np.sort(first, axis=1)


#: Kind of label → what turns logits into probabilities, and how probable an answer is by them.
_SHARES: Mapping[str, Callable[[Array], Array]] = {"class": softmax, "classes": sigmoid}
_CHANCES: Mapping[str, Callable[[Array, Array], npt.NDArray[np.float32]]] = {"class": _of_class, "classes": _of_classes}
