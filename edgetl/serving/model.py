"""A model under its name: the version in charge, how many requests it takes, and what comes after a deploy."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import missing
from edgetl.base.memory import shortage
from edgetl.runtime.releases import CURRENT
from edgetl.serving.metrics import Metrics
from edgetl.serving.protocol import RequestError
from edgetl.serving.version import Version

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        queue: requests of a model that may wait while others run.
        max_body: MiB of a request.
        max_batch: samples of a request.
        body_seconds: that a request may take to arrive.
    """

    queue: int = 64
    max_body: float = 16.0
    max_batch: int = 32
    body_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.queue < 0 or not 0 < self.max_body <= 1 << 12 or self.max_batch < 1 or not self.body_seconds > 0:
            what = f"a queue of {self.queue}, {self.max_body:g} MiB and {self.max_batch} samples are no limits"
            raise EdgetlError(what, "give --queue from 0, --max-body in MiB up to 4096, and --max-batch from 1")

    @property
    def most_bytes(self) -> int:
        """Of a request's body."""
        return int(self.max_body * (1 << 20))


class Model:
    """A name that clients ask, and the version that answers them now.

    All but :meth:`refresh`'s loading happens on the event loop.

    Args:
        name: in URLs.
        path: the bundle's folder, or a link to it, such as ``current`` of what was deployed.
        load: makes a version of a folder.
        limits, metrics: of the server.
        tell: told, in a sentence, of a new version, or why there is none.

    Raises:
        EdgetlError: as :class:`edgetl.serving.version.Version` does.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        load: Callable[[Path], Version],
        limits: Limits,
        metrics: Metrics,
        tell: Callable[[str], None],
    ) -> None:
        self.name, self._path, self._load = name, path, load
        self._limits, self._metrics, self._tell = limits, metrics, tell
        self._waiting = 0
        self._suspect = False
        self.version = self._tested(self._folder())
        self._looked_at = self.version.folder
        metrics.in_charge(name, None, self.version.digest)

    def _tested(self, folder: Path) -> Version:
        version = self._load(folder)
        version.seconds = self._metrics.inference_seconds.labels(self.name).observe
        return version

    def _folder(self) -> Path:
        """Where the path leads now."""
        return Path(os.path.realpath(self._path))

    def retire(self) -> None:
        """Serve no more."""
        self.version.retire()

    @contextmanager
    def admitted(self) -> Iterator[Version]:
        """A place in the queue for a request whose body is not read yet, and the version that will answer it.

        Raises:
            RequestError: 503, there is none.
        """
        if self._waiting >= self.version.workers + self._limits.queue:
            raise RequestError(f"{self.name} has {self._waiting} requests already", "try again in a second", 503)
        self._waiting += 1
        self._metrics.waiting.labels(self.name).set(self._waiting)
        try:
            with self.version.in_use() as version:
                yield version
        finally:
            self._waiting -= 1
            self._metrics.waiting.labels(self.name).set(self._waiting)

    def failed(self) -> None:
        """An answer failed for no fault of the request's: the self-test is asked again before it is called ready."""
        self._suspect = True

    async def ready(self) -> bool:
        """Whether the version in charge passes its self-test: as it was loaded, and again after a failure."""
        if self._suspect:
            with self.version.in_use() as version:
                try:
                    found = await version.submit(version.selftest)
                except Exception as error:  # whatever a broken runtime raises
                    self._tell(f"{self.name} is not ready: {error}")
                    return False
            self._suspect = not found.passed
        return not self._suspect

    async def refresh(self) -> None:
        """Look where the path leads now; a new version that passes its self-test takes the next requests.

        One that does not is not taken, and is not tried again until the path leads elsewhere.
        """
        folder = self._folder()
        if folder == self._looked_at or not folder.is_dir():
            return
        self._looked_at = folder
        try:
            newer = await asyncio.to_thread(self._tested, folder)
        except Exception as error:  # the old version goes on, whatever is the matter with the new one
            known = error if isinstance(error, EdgetlError) else missing(error) or shortage(error)
            why = known or f"a bug in edgetl: {type(error).__name__}: {error}"
            self._metrics.reloads.labels(self.name, "refused").inc()
            self._tell(f"{self.name} stays at {self.version.digest[:12]}: {why}")
            return
        older, self.version, self._suspect = self.version, newer, False
        self._metrics.reloads.labels(self.name, "taken").inc()
        self._metrics.in_charge(self.name, older.digest, newer.digest)
        older.retire()
        self._tell(f"{self.name} is now {newer.digest[:12]}, which passed its self-test")


def named(bundles: Sequence[str | Path] | Mapping[str, str | Path], names: Sequence[str]) -> dict[str, Path]:
    """Bundles by the names under which they are served.

    Args:
        bundles: folders, or folders by name.
        names: of the folders, in order; by default each one's own, of ``NAME/current`` that of the deployment.

    Raises:
        EdgetlError: there is none, or a name is none, or stands twice.
    """
    if isinstance(bundles, Mapping):
        pairs = [(name, Path(path)) for name, path in bundles.items()]
    else:
        if names and len(names) != len(bundles):
            raise EdgetlError(f"{len(bundles)} bundles have {len(names)} names", "give --name once for each, in order")
        paths = [Path(path) for path in bundles]
        pairs = list(zip(names or map(_own_name, paths), paths, strict=True))
    if not pairs:
        raise EdgetlError("there is no bundle to serve", "name one, or several")
    for name, path in pairs:
        if not re.fullmatch(_NAME, name):
            what = f"'{name}' cannot name the model of {path}"
            raise EdgetlError(what, "give --name: letters, digits, '.', '_' and '-'")
        if sum(name == other for other, _ in pairs) > 1:
            raise EdgetlError(f"two models are called '{name}'", "give --name once for each bundle, in order")
    return dict(pairs)


def _own_name(path: Path) -> str:
    whole = path.absolute()
    return whole.parent.name if whole.name == CURRENT and whole.is_symlink() else whole.resolve().name
