"""Releases on a device: a bundle stands beside the old one, whole and tested, before one rename puts it in charge.

    $XDG_DATA_HOME/edgetl/NAME/         XDG_DATA_HOME is ~/.local/share where it is not set
        releases/DIGEST/                a bundle, its files unaltered and its own
        current                         a link to the release in charge: programs open current/model/…

Whatever stops this, ``current`` names a release that passed its self-test here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from edgetl.base.errors import BundleError, DeviceError
from edgetl.base.lock import alone
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.bundle_archive import travelling
from edgetl.runtime.installed import Installed, SelfTest
from edgetl.runtime.selftest import selftest

CURRENT = "current"
_PARTIAL = ".partial"


def data_home() -> Path:
    """The folder that holds every deployed bundle of this user; it need not exist."""
    given = os.environ.get("XDG_DATA_HOME")
    return (Path(given) if given else Path.home() / ".local/share") / "edgetl"


def install(bundle: Bundle, name: str, *, threads: int | None = None) -> Installed:
    """Put a bundle in charge under ``name``, if it passes its self-test here.

    The last release that was in charge stays beside it, older ones go.

    Args:
        bundle: opened and checked, in any folder of this machine.
        name: letters, digits, ``.``, ``_`` and ``-``.
        threads: of the self-test; all cores when None.

    Raises:
        DeviceError: a bad name, another installation under way, or a self-test that failed; the old one stays.
        BackendError: the runtime is not here or refuses the model; the old one stays.
        OSError: the disk is full or read-only; the old one stays.
    """
    with _place(name) as place:
        releases, old = place / "releases", _current(place)
        chosen = releases / bundle.digest
        there = _opened(chosen, bundle.signed_by)
        if there is None:
            chosen = _first_free(chosen)
            tested = _add(bundle, chosen, threads)
        else:
            tested = _tested(there, threads)
        if chosen.name != old:
            _put_in_charge(place, chosen.name)
            _prune(releases, {chosen.name, old})
        return _answer(place, "unchanged" if chosen.name == old else "deployed", tested)


def rollback(name: str, *, threads: int | None = None, public_key: str | None = None) -> Installed:
    """Put the previous release in charge again, if it passes its self-test; a second rollback returns to the newer one.

    Args:
        name: as for :func:`install`.
        threads: of the self-test; all cores when None.
        public_key: that must have signed it: a file, or 64 hexadecimal digits.

    Raises:
        BundleError: it is damaged, or not signed.
        DeviceError: nothing of that name is deployed, there is no previous release, or it fails; all stays as it is.
    """
    with _place(name) as place:
        old = _current(place)
        if old is None:
            there = sorted(p.parent.name for p in data_home().glob(f"*/{CURRENT}"))
            raise DeviceError(
                f"nothing is deployed under the name '{name}'",
                f"choose one of {', '.join(there)} with --name" if there else "deploy it first: edgetl deploy",
            )
        previous = _previous(place)
        if previous is None:
            raise DeviceError(f"'{name}' has no previous release", "deploy the bundle that you want")
        tested = _tested(load_bundle(place / "releases" / previous, public_key), threads)
        _put_in_charge(place, previous)
        return _answer(place, "rolled back", tested)


def in_charge(name: str, public_key: str | None = None) -> tuple[str, Bundle] | None:
    """The release in charge under a name: the name of its folder, and the bundle; None where there is none.

    Args:
        name, public_key: as for :func:`rollback`.

    Raises:
        BundleError: it is damaged, or not signed.
        DeviceError: a bad name.
    """
    _check_name(name)
    place = data_home() / name
    release = _current(place)
    # By its own folder: what is in charge may change while it answers.
    return None if release is None else (release, load_bundle(place / "releases" / release, public_key))


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise DeviceError(f"'{name}' cannot name what is deployed", "use letters, digits, '.', '_' and '-'")


@contextlib.contextmanager
def _place(name: str) -> Iterator[Path]:
    """The folder of ``name``, with no other installation at work; one that stays empty goes."""
    _check_name(name)
    home = data_home()
    home.mkdir(parents=True, exist_ok=True)
    place = home / name
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(home / ".lock"))
        except BlockingIOError as error:
            raise DeviceError("another deployment is under way there", "wait for it to end") from error
        try:
            (place / "releases").mkdir(parents=True, exist_ok=True)
            for left in (place / "releases").glob(f"{_PARTIAL}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield place
        finally:
            for folder in (place / "releases", place):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _current(place: Path) -> str | None:
    try:
        return (place / CURRENT).readlink().name
    except FileNotFoundError:
        return None


def _previous(place: Path) -> str | None:
    """The release that was in charge before: of those that are not, the one put there last."""
    others = [p for p in (place / "releases").iterdir() if p.name != _current(place) and p.name[0] != "."]
    return max(others, key=lambda p: p.stat().st_mtime_ns).name if others else None


def _opened(release: Path, key: str) -> Bundle | None:
    """The release, if it is there, whole, and signed by the key, if there is one."""
    if not release.is_dir():
        return None
    try:
        return load_bundle(release, key or None)
    except BundleError:
        return None


def _first_free(release: Path) -> Path:
    """A damaged release may be in charge: it is not touched before a whole one is."""
    count = 1
    while release.exists():
        count += 1
        release = release.with_name(f"{release.name.split('.')[0]}.{count}")
    return release


def _add(bundle: Bundle, release: Path, threads: int | None) -> SelfTest:
    partial = release.with_name(f"{_PARTIAL}-{release.name}")
    _remember(partial)
    try:
        for name in travelling(bundle.path, bundle.manifest.files):
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            _copy(bundle.path / name, file)
        tested = _tested(load_bundle(partial, bundle.signed_by or None), threads)
        partial.rename(release)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return tested


def _remember(folder: Path) -> None:
    """Tell whoever watches this process what to remove should it be killed."""
    file = os.environ.get("EDGETL_LEFTOVERS")
    if file:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(f"{folder}\n")


def _copy(source: Path, file: Path) -> None:
    # No link: the cache that edgetl brought it through may be damaged or deleted, and the user's own folder changed.
    shutil.copyfile(source, file)
    file.chmod(0o444)


def _tested(bundle: Bundle, threads: int | None) -> SelfTest:
    outcome = selftest(bundle, threads=threads)
    if not outcome.passed:
        raise DeviceError(
            f"the self-test failed: {'; '.join(outcome.problems)}",
            "compare the versions there with the bundle's, or verify the bundle on this device",
        )
    return outcome


def _put_in_charge(place: Path, release: str) -> None:
    os.utime(place / "releases" / release)
    link = place / f".{CURRENT}"
    link.unlink(missing_ok=True)
    link.symlink_to(f"releases/{release}")
    link.replace(place / CURRENT)


def _prune(releases: Path, kept: set[str | None]) -> None:
    for release in releases.iterdir():
        if release.name not in kept:
            shutil.rmtree(release, ignore_errors=True)


def _answer(place: Path, state: Literal["deployed", "unchanged", "rolled back"], tested: SelfTest) -> Installed:
    return Installed(state, _current(place), _previous(place), str(place / CURRENT), tested)
