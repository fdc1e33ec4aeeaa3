"""The layers behind a loss: those that quantization damaged, or that the runtime computes in another way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetl.base.errors import CompressionError, MissingExtraError
from edgetl.compress.layers.attribution import responsible
from edgetl.compress.layers.taps import compare
from edgetl.compress.layers.taps_ir import compare_ir
from edgetl.core.bundle import Bundle
from edgetl.core.certificate_parts import Rung
from edgetl.core.findings import Finding
from edgetl.inputs import input_of
from edgetl.workflow.answers import FLOAT_RUNG, HOST_RUNG, QDQ_RUNG

#: Samples on which two executions of the same artifact are compared tensor by tensor.
COMPARED = 8


def layers_behind(bundle: Bundle, executed: str, root: Path | None, ladder: Sequence[Rung]) -> list[Finding]:
    """The layers behind the first rung that is proven to diverge, if quantization or the runtime explains it.

    Several rungs are tested: without a loss to explain, one of them diverges now and then by chance.
    """
    try:
        return _layers_behind(bundle, executed, root, ladder)
    except (MissingExtraError, CompressionError):
        # The diagnosis has said that graphs cannot be read here, or another tool made them, whose layers have other
        # names; the verdict does not depend on this.
        return []


def _layers_behind(bundle: Bundle, executed: str, root: Path | None, ladder: Sequence[Rung]) -> list[Finding]:
    rungs = [rung.name for rung in ladder]
    first = next((rung.name for rung in ladder if rung.diverges), None)
    if bundle.precision != "int8" or first in (None, "reference", FLOAT_RUNG):
        return []
    if first == QDQ_RUNG or (executed == "simulated" and QDQ_RUNG not in rungs):
        return _quantized(bundle, first or "")
    if QDQ_RUNG in rungs and first in (HOST_RUNG, "deployed") and root is not None:
        return _executed(bundle, first or "", root)
    return []


def _quantized(bundle: Bundle, rung: str) -> list[Finding]:
    noises = responsible(bundle.layers)
    if not noises:
        return []
    named = "; ".join(f"{x.name} ({x.cause}, {x.sqnr_db:.1f} dB)" for x in noises[:3])
    share = sum(x.share for x in noises)
    what = (
        f"{len(noises)} of {len({layer.node for layer in bundle.layers})} layers make {share:.0%} of the noise that "
        f"quantization adds, as the rung '{rung}' shows: {named}{' …' if len(noises) > 3 else ''}."
    )
    return [Finding("quantization-noise", what, tuple(x.name for x in noises), {"rung": rung})]


def _executed(bundle: Bundle, rung: str, root: Path) -> list[Finding]:
    held = [root / s.path for s in bundle.dataset.split("search")][:COMPARED]
    samples = [input_of(bundle).feeds(path) for path in held if path.is_file()]
    if not samples:
        return []
    model = bundle.artifact().path
    ir = model.suffix == ".xml"
    tensors = compare_ir(model, bundle.source, samples) if ir else compare((model, True), (model, False), samples)
    tensors = tensors[:5]
    named = "; ".join(f"{x.module or x.tensor} ({x.sqnr_db:.1f} dB)" for x in tensors[:3])
    what = f"The rung '{rung}' departs from its own Q/DQ graph computed in float, most at {named}."
    return [Finding("runtime", what, tuple(x.module or x.tensor for x in tensors), {"rung": rung})]
