"""One version of a model: a bundle in its runtime, tested here by its golden vectors, that answers requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BundleError
from edgetl.core.bundle import load_bundle
from edgetl.core.tensors import Arrays
from edgetl.inputs import Text, input_of
from edgetl.runtime.installed import SelfTest
from edgetl.runtime.open_head import answering, labels_of
from edgetl.runtime.predict import AT_ONCE, infer, output_specs, several, task_of
from edgetl.runtime.predictor import described
from edgetl.runtime.selftest import selftest
from edgetl.runtime.sessions import Session, fixed_batch
from edgetl.serving.protocol import RequestError, Signature, read_request, write_answer

Made = TypeVar("Made")


class Version:
    """A bundle that is ready to answer; what takes time is called in threads of its own, by :meth:`submit`.

    But for its self-test, nothing of the folder is read once it is made: releases that are in charge no longer go.

    Args:
        folder: the bundle's own, no link to it.
        threads: of one session that works alone; None: as many at once as there are cores, where the runtime allows.
        most_samples: in one request.
        public_key: that must have signed it.

    Attributes:
        digest: of the bundle: what clients know as the version.
        takes: what it takes and gives.
        backend: of its artifact.
        workers: inferences at once.
        seconds: told how long each inference took, without decoding.

    Raises:
        BundleError: it is no bundle, was altered, is not signed, or fails its self-test on this machine.
        BackendError: the runtime refuses the artifact or is not installed.
    """

    def __init__(self, folder: Path, *, threads: int | None, most_samples: int, public_key: str | Path | None) -> None:
        self.folder, self._bundle = folder, load_bundle(folder, public_key)
        self.digest = self._bundle.digest
        self.seconds: Callable[[float], None] = lambda seconds: None
        self._input, self._task, self._labels = input_of(self._bundle), task_of(self._bundle), labels_of(self._bundle)
        artifact = answering(self._bundle)
        self._changed = artifact.head is not None
        self.backend, simulated = artifact.backend, self._bundle.manifest.target.executes_on_host() == "simulated"
        self._simulated = simulated
        with ExitStack() as undo:
            sessions = undo.enter_context(several(artifact, threads=threads, simulated=simulated))
            self.tested = self._tested(sessions[0], simulated)
            if not self.tested.passed:
                why = "; ".join(self.tested.problems)
                raise BundleError(f"{folder} fails its self-test here: {why}", "compare versions, or verify it here")
            self.workers = len(sessions)
            self._free = SimpleQueue[Session]()
            for session in sessions:
                self._free.put(session)
            self.takes = self._signature(sessions[0], most_samples)
            self._pool = ThreadPoolExecutor(max(self.workers, AT_ONCE), "edgetl-serving")
            self._held = undo.pop_all()
        self._users, self._retired, self._lock = 0, False, threading.Lock()

    def _tested(self, session: Session, simulated: bool) -> SelfTest:
        # What the golden vectors expect is the certified head's, which a session of its own has.
        if self._changed:
            return selftest(self._bundle, threads=1, simulated=simulated)
        return selftest(self._bundle, session=session)

    def _signature(self, session: Session, most_samples: int) -> Signature:
        batch = fixed_batch(session.inputs)
        inputs = tuple(type(spec)(spec.name, spec.dtype, (batch, *spec.shape[1:])) for spec in self._input.tensors)
        longest = self._input.length if isinstance(self._input, Text) else 0
        return Signature(
            inputs, output_specs(self._bundle, "enrolled"), min(most_samples, batch or most_samples), longest
        )

    @contextmanager
    def in_use(self) -> Iterator[Version]:
        """Keep it for a request until that is answered, though a newer one be in charge meanwhile."""
        with self._lock:
            self._users += 1
        try:
            yield self
        finally:
            with self._lock:
                self._users -= 1
                last = self._retired and not self._users
            if last:
                self._close()

    def retire(self) -> None:
        """Close it when the last request that it has is answered."""
        with self._lock:
            done = not self._retired and not self._users
            self._retired = True
        if done:
            self._close()

    def submit(self, work: Callable[..., Made], *given: object) -> asyncio.Future[Made]:
        """Have a thread work, in which time it is in use, whatever becomes of whoever waits."""
        held = ExitStack()
        held.enter_context(self.in_use())
        future = self._pool.submit(work, *given)
        future.add_done_callback(lambda _: held.close())
        return asyncio.wrap_future(future)

    def _close(self) -> None:
        # Sessions wait for what still runs; whoever retires it must not.
        self._pool.submit(self._held.close)
        self._pool.shutdown(wait=False)

    def infer(self, body: bytes, header_length: str | None, model: str) -> tuple[bytes, int | None]:
        """Answer a request of the Open Inference Protocol; see :mod:`edgetl.serving.protocol`.

        Raises:
            RequestError: it is malformed, or the network has no answer to it.
        """
        request = read_request(body, header_length, self.takes)
        return write_answer(request, self._run(request.feeds), model, self.digest)

    def predict(self, content: bytes, top: int) -> dict[str, Any]:
        """Answer for one sample, from the bytes of its file, as ``edgetl predict --json`` does.

        Raises:
            DataError: they are no such sample.
            RequestError: the network's answer to it is no number.
        """
        outputs = self._run(self._input.feeds(content))
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise RequestError("the model answers with what is no finite number", "send smaller numbers")
        return described(self._task, self._labels, outputs, top)[0].to_json()

    def selftest(self) -> SelfTest:
        """Compute the golden vectors again, in a session that serves.

        Raises:
            BundleError: the bundle's folder is gone or was altered.
        """
        session = self._free.get()
        try:
            return self._tested(session, self._simulated)
        finally:
            self._free.put(session)

    def _run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        session = self._free.get()
        try:
            began = time.perf_counter()
            found = infer(session, feeds)
            self.seconds(time.perf_counter() - began)
            return found
        except Exception as error:
            # What ONNX Runtime calls so is the asker's: a token that the vocabulary does not have.
            if type(error).__name__ == "InvalidArgument":
                raise RequestError("the network has no answer to these numbers", "give what its inputs mean") from error
            raise
        finally:
            self._free.put(session)
