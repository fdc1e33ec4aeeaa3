"""Watching a bundle at work: do the samples that it is asked still look like those that it was certified on?

    monitor = edgetl.Monitor("out/rpi5")
    answer = monitor.predict("photo.jpg")
    if monitor.alarm:
        print(monitor.sentence)

No labels are needed. What is compared, and at which rate of false alarms: :mod:`edgetl.runtime.characteristics`,
:mod:`edgetl.runtime.drift`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.base.errors import BundleError
from edgetl.base.wording import counted, figure
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.tensors import Arrays
from edgetl.inputs import kind_of
from edgetl.runtime.characteristics import of_input, of_outputs
from edgetl.runtime.drift import Departure, DriftTest
from edgetl.runtime.predict import task_of
from edgetl.runtime.predictor import TOP, Prediction, Predictor, describe

if TYPE_CHECKING:
    from edgetl.runtime.predictor import Source


class Monitor:
    """A bundle that answers and watches what it is asked; in one thread, in the order of the samples.

    Args:
        bundle: its folder, or opened already.
        alpha: the probability of a false alarm ever, however long it runs and however often it is looked at.
        seed: of the random ties.
        threads: worker threads of the runtime; all cores when None.

    Raises:
        BundleError: it is no bundle, or holds no sketch of what it was certified on.
        BackendError: the runtime refuses the artifact or is not installed; with the first sample.
        CertifyError: alpha is out of range.
    """

    def __init__(
        self, bundle: str | Path | Bundle, *, alpha: float = 0.01, seed: int = 0, threads: int | None = None
    ) -> None:
        self.bundle = load_bundle(bundle)
        sketch = self.bundle.sketch
        if sketch is None:
            what = f"{self.bundle.path} does not say what its certify samples are like"
            raise BundleError(what, "verify it where they are: edgetl verify BUNDLE --data DATA")
        self.test = DriftTest(sketch, alpha, seed)
        self._task, self._noun, self._threads = task_of(self.bundle), kind_of(self.bundle).noun, threads
        self._predictor: Predictor | None = None

    def predict(self, source: Source, *, top: int = TOP) -> Prediction:
        """Answer for one sample, as :meth:`edgetl.runtime.predictor.Predictor.predict`, and watch it."""
        if self._predictor is None:
            simulated = self.bundle.manifest.target.executes_on_host() == "simulated"
            self._predictor = Predictor(self.bundle, threads=self._threads, simulated=simulated)
        feeds = self._predictor.feeds(source)
        outputs = self._predictor.run(feeds)
        self.see(feeds, outputs)
        return describe(self.bundle, outputs, top)[0]

    def see(self, feeds: Arrays, outputs: Arrays) -> bool:
        """Watch one sample that was answered elsewhere; whether there is an alarm by now.

        Args:
            feeds: what the network was fed, each array (1, …).
            outputs: what it gave, (1, …).
        """
        answered = {name: float(values[0]) for name, values in of_outputs(self._task, outputs).items()}
        return self.test.add({**of_input(feeds), **answered})

    @property
    def alarm(self) -> bool:
        """Whether the samples no longer look like the certified ones; once raised it stays."""
        return self.test.alarm_at is not None

    @property
    def sentence(self) -> str:
        """What is to be said of the certificate by now."""
        seen = counted(self.test.n, self._noun)
        if not self.alarm:
            return (
                f"{seen.capitalize()} seen, and nothing says that they are unlike those that were certified "
                f"(evidence {figure(self.test.evidence, '')}, an alarm from {self.test.threshold:g})."
            )
        most = ", ".join(_departed(found) for found in self.test.departures()[:3] if found.evidence > 1)
        return (
            f"From the {self._noun} number {self.test.alarm_at} on it is shown that these are not such as were "
            f"certified (median {most}): the certificate does not speak of them. Look at them, and verify with labels."
        )

    def close(self) -> None:
        """Free the runtime's memory and threads."""
        if self._predictor is not None:
            self._predictor.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _departed(found: Departure) -> str:
    return f"{found.name} {found.seen:.4g} instead of {found.certified:.4g}"
