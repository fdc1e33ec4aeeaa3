"""What a bundle is asked to be: which run, for which target, how compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from edgetl.backends import BACKENDS
from edgetl.base.errors import BackendError, CompressionError, EdgetlError
from edgetl.base.schema import to_json
from edgetl.base.storage import sha256_json
from edgetl.compress.graph import MOST_AT_ONCE, kind_of, load
from edgetl.compress.recipes import Recipe, family, serving
from edgetl.core.bundle import PRECISIONS, Precision
from edgetl.core.run import Run
from edgetl.core.targets import Target, find_target
from edgetl.workflow.given_artifact import GivenArtifact
from edgetl.workflow.stage_cache import versions

#: Minutes that repairing one bundle may take, unless told otherwise.
REPAIR_MINUTES = 10.0


@dataclass(frozen=True)
class Request:
    """One bundle to make.

    Attributes:
        run: what was trained.
        name: of the bundle's folder: the target as the user named it.
        target, precision: what it is made for.
        selection, size: override the recipe's choice of calibration images.
        batch: fixed batch size of the graph, or None.
        margin: greatest tolerable loss: what repair aims at.
        minutes: that repair may take; 0 to deploy the recipe's outcome whatever it is.
        artifact: what another tool compressed, to be deployed as it is; None for edgetl's own.
    """

    run: Run
    name: str
    target: Target
    precision: Precision
    selection: str | None = None
    size: int | None = None
    batch: int | None = None
    margin: float = 0.01
    minutes: float = 0.0
    artifact: GivenArtifact | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The settings of a recipe that it overrides."""
        given = {"selection": self.selection, "size": self.size}
        return {name: value for name, value in given.items() if value is not None}

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """The target's recipe and its siblings for other kinds of model, changed; none for a float precision."""
        name = None if self.artifact else self.target.recipe(self.precision)
        return family(name, self.changes)

    @property
    def asked(self) -> dict[str, Any]:
        """What of it another export needs to give the same bundle, apart from run and target."""
        repair = {"margin": self.margin, "minutes": self.minutes} if self.recipes else {}
        batch = {} if self.batch is None else {"batch": self.batch}
        artifact = {} if self.artifact is None else {"artifact": self.artifact.path.name}
        return {"precision": self.precision, **self.changes, **batch, **repair, **artifact}

    def recipe(self, floating: Path) -> Recipe | None:
        """The one that serves the kind of model in a float ONNX file; None for a float precision.

        Raises:
            CompressionError: there is none, or it calibrates nothing and is to do it otherwise.
        """
        if not self.recipes:
            return None
        chosen = serving(self.recipes, kind_of(load(floating)))
        if self.changes and not chosen.calibrates:
            raise CompressionError(f"the recipe {chosen.name} calibrates nothing", "leave out what chooses samples")
        return chosen

    def key(self) -> str:
        """SHA-256 over everything that the bundle's content depends on."""
        repair = {"margin": self.margin, "minutes": self.minutes} if self.recipes and self.minutes else None
        return sha256_json(
            {
                "run": self.run.digest,
                "baseline": to_json(self.run.baseline),
                "target": self.target.to_json(),
                "precision": self.precision,
                "recipes": [recipe.to_json() for recipe in self.recipes],
                "changes": self.changes,
                "repair": repair,
                "batch": self.batch,
                **({"artifact": [self.artifact.path.name, self.artifact.sha256]} if self.artifact else {}),
                "versions": versions(
                    "torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt_rtx", "tensorrt", "ai_edge_litert"
                ),
            }
        )


def precision_for(target: Target, wanted: str | None) -> Precision:
    """The precision that is wanted, or the target's own.

    Raises:
        BackendError: the target cannot take it; those that it can are named.
    """
    precision = cast(Precision, wanted or target.default_precision)
    backend = BACKENDS[target.backend]
    reason = backend.refuses(target, precision)
    if reason:
        makeable = [p for p in PRECISIONS if backend.refuses(target, p) is None]
        raise BackendError(f"{target.name} cannot take {precision}: {reason}", f"use {' or '.join(makeable)}")
    return precision


def check_batch(batch: int | None) -> None:
    """Refuse a fixed batch size that no graph has.

    Raises:
        EdgetlError: it is none.
    """
    if batch is not None and not 1 <= batch <= MOST_AT_ONCE:
        raise EdgetlError(f"a batch of {batch} is impossible", f"give 1 to {MOST_AT_ONCE}, or leave it out for any")


def minutes_for(budget: float, repair: bool) -> float:
    """Minutes that repair may take: those of the budget, or none.

    Raises:
        EdgetlError: the budget is no time.
    """
    if not 0 < budget < float("inf"):
        raise EdgetlError(f"a budget of {budget} minutes is no time", "give a positive number, or --no-repair")
    return budget if repair else 0.0


def requests_for(
    run: Run,
    targets: Sequence[str],
    precision: str | None,
    *,
    selection: str | None,
    size: int | None,
    batch: int | None,
    margin: float,
    minutes: float,
    artifact: str | Path | None = None,
) -> list[Request]:
    """A request for each target that is named, once; see :class:`Request`.

    Raises:
        UnknownNameError: there is no such target.
        BackendError: one of them cannot take the precision.
        CompressionError: one of them cannot take the artifact, or it is of another model.
        EdgetlError: a batch that no graph has, or a wish for what is compressed already.
    """
    check_batch(batch)
    given = None if artifact is None else take(artifact, selection, size, batch)
    found = [(name, find_target(name)) for name in dict.fromkeys(targets)]
    return [
        Request(
            run, name, target, _precision(run, target, precision, given),
            selection, size, batch, margin, 0.0 if given else minutes, given,
        )
        for name, target in found
    ]  # fmt: skip


def take(artifact: str | Path, selection: str | None, size: int | None, batch: int | None) -> GivenArtifact:
    """The file that another tool compressed; none of the others may be asked for with it.

    Raises:
        CompressionError: it cannot be read, or is no form of artifact.
        EdgetlError: one of them is asked for.
    """
    given = GivenArtifact.of(artifact)
    for option, wish in {"samples": selection, "calibration-images": size, "batch": batch}.items():
        if wish is not None:
            what = f"--{option} is about how a model is compressed, and an artifact is compressed already"
            raise EdgetlError(what, f"leave out --{option} or --artifact")
    return given


def _precision(run: Run, target: Target, wanted: str | None, given: GivenArtifact | None) -> Precision:
    if given is None:
        return precision_for(target, wanted)
    own = given.precision(run, target)
    if wanted not in (None, own):
        raise EdgetlError(f"{given.path} is {own}, not {wanted}", "leave out --precision")
    return precision_for(target, own)
