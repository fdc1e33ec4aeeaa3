"""The way to use a bundle from Python: open it, ask it.

    import edgetl

    answer = edgetl.load_bundle("out/rpi5").predict("photo.jpg")
    print(answer.label, answer.probability)

Needs numpy, the bundle's one runtime, and Pillow for images or ``tokenizers`` for texts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from edgetl.core import bundle as bundles
from edgetl.core.bundle import Bundle
from edgetl.runtime.predictor import TOP, Prediction, Predictor

if TYPE_CHECKING:
    from edgetl.runtime.predictor import Source


@dataclass(frozen=True)
class LoadedBundle(Bundle):
    """A bundle that answers: its artifact is loaded into its runtime with the first question, and stays."""

    @cached_property
    def predictor(self) -> Predictor:
        """What answers; close it to free the runtime's memory. Made for other hardware, it is simulated here."""
        return Predictor(self, simulated=self.manifest.target.executes_on_host() == "simulated")

    @overload
    def predict(self, source: list[Any] | tuple[Any, ...], *, top: int = TOP, batch: int = 1) -> list[Prediction]: ...
    @overload
    def predict(self, source: Source, *, top: int = TOP, batch: int = 1) -> Prediction: ...
    def predict(self, source: Any, *, top: int = TOP, batch: int = 1) -> Prediction | list[Prediction]:
        """Answer for one sample, or for each of a list; see :meth:`edgetl.runtime.predictor.Predictor.predict`.

        Raises:
            DataError: a file is missing or damaged, or no such sample.
            BackendError: the runtime refuses the artifact or is not installed.
        """
        found: Prediction | list[Prediction] = self.predictor.predict(source, top=top, batch=batch)
        return found

    @overload
    async def predict_async(
        self, source: list[Any] | tuple[Any, ...], *, top: int = TOP, batch: int = 1
    ) -> list[Prediction]: ...
    @overload
    async def predict_async(self, source: Source, *, top: int = TOP, batch: int = 1) -> Prediction: ...
    async def predict_async(self, source: Any, *, top: int = TOP, batch: int = 1) -> Prediction | list[Prediction]:
        """As :meth:`predict`, in a thread: the event loop goes on meanwhile, also while the artifact is loaded."""
        return await asyncio.to_thread(self.predict, source, top=top, batch=batch)


def load_bundle(path: str | Path | Bundle, public_key: str | Path | None = None) -> LoadedBundle:
    """Open a bundle and check every file against its manifest.

    Args:
        path: its folder.
        public_key: that must have signed all of it: a file, or 64 hexadecimal digits; None asks for no signature.

    Raises:
        BundleError: missing, of another schema, incomplete, altered or not signed; the message names the file.
    """
    opened = bundles.load_bundle(path, public_key)
    return opened if isinstance(opened, LoadedBundle) else LoadedBundle(opened.path, opened.manifest, opened.signed_by)
