"""A model card as a bill of materials: CycloneDX 1.7 (ECMA-424), JSON, with what the bundle is made of and needs.

https://cyclonedx.org/docs/1.7/json. Written here because what writes CycloneDX for Python knows no model card.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from edgetl import __version__
from edgetl.base.extras import PROVIDERS
from edgetl.core.bill import BillSeal, sealed_bill
from edgetl.core.bundle import Bundle
from edgetl.core.licences import NOT_STATED, Source, spdx
from edgetl.reporting.papers.card import Measured, ModelCard

SPEC = "1.7"
_SCHEMA = f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json"
_KINDS = {"weights": "machine-learning-model", "data": "data", "tool": "library"}


def bill(bundle: Bundle, card: ModelCard) -> dict[str, Any]:
    """The bill of materials of a bundle, sealed.

    Args:
        bundle: what it is of.
        card: what is known of its model.
    """
    parts = [_component(number, source, card) for number, source in enumerate(card.sources)]
    body = {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, card.certificate)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "edgetl", "version": __version__}]},
            "component": _model(bundle, card),
        },
        "components": [*parts, *_files(bundle)],
        "dependencies": [{"ref": "model", "dependsOn": [part["bom-ref"] for part in parts]}],
    }
    return sealed_bill(body, BillSeal(manifest=card.bundle, certificate=card.certificate))


def _component(number: int, source: Source, card: ModelCard) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": _KINDS[source.role],
        "bom-ref": f"{source.role}-{number}",
        "name": source.name,
        "licenses": _licences(source.licence),
    }
    if source.role == "tool":
        package, version = PROVIDERS.get(source.name, (source.name, ""))[0], card.versions.get(source.name)
        made |= {"name": package, **({"version": version} if version else {})}
        if spdx(source.licence):
            made["purl"] = f"pkg:pypi/{quote(package)}" + (f"@{quote(version)}" if version else "")
    if source.role == "data":
        made["data"] = [{"type": "dataset", "name": source.name}]
    return {**made, **_hashed(source.sha256)}


def _hashed(sha256: str) -> dict[str, Any]:
    known = re.fullmatch("[0-9a-f]{64}", sha256)
    return {"hashes": [{"alg": "SHA-256", "content": sha256}]} if known else {}


def _licences(stated: str) -> list[dict[str, Any]]:
    known = spdx(stated)
    if not known:
        return [{"license": {"name": stated or NOT_STATED}}]
    one = " " not in known and not known.startswith(("LicenseRef-", "DocumentRef-"))
    return [{"license": {"id": known}}] if one else [{"expression": known}]


def _files(bundle: Bundle) -> Iterator[dict[str, Any]]:
    """The files of the manifest: records come and go, and are sealed by themselves."""
    for name, entry in sorted(bundle.manifest.files.items()):
        yield {"type": "file", "bom-ref": f"file:{name}", "name": name, **_hashed(entry.sha256)}


def _model(bundle: Bundle, card: ModelCard) -> dict[str, Any]:
    certificate = card.certified
    facts = {
        "verdict": certificate.verdict,
        "metric": certificate.metric,
        "margin": _number(certificate.margin),
        "alpha": _number(certificate.alpha),
        "method": certificate.method,
        "n": str(certificate.n),
        "executed": certificate.executed,
        "runtime": certificate.runtime,
        "precision": certificate.precision,
        "target": bundle.target,
        "preprocess": certificate.hashes.get("preprocess", ""),
        "splits": certificate.hashes.get("splits", ""),
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": card.name,
        "version": card.bundle[:16],
        "description": card.use,
        **_hashed(certificate.hashes.get("model", "")),
        "modelCard": _card(card),
        "properties": [{"name": f"edgetl:{name}", "value": value} for name, value in facts.items() if value],
    }


def _card(card: ModelCard) -> dict[str, Any]:
    run, data = card.trained, [i for i, source in enumerate(card.sources) if source.role == "data"]
    considered: dict[str, Any] = {
        "useCases": [card.use],
        "technicalLimitations": list(card.limits),
        "performanceTradeoffs": list(card.tradeoffs),
    }
    if card.worst is not None:
        name, found = card.worst
        considered["fairnessAssessments"] = [{"groupAtRisk": f"{card.certified.sample}s of '{name}'", "harms": found}]
    return {
        "modelParameters": {
            "task": card.certified.task,
            **({"modelArchitecture": run.backbone} if run is not None and run.backbone else {}),
            "datasets": [{"ref": f"data-{number}"} for number in data],
            "inputs": [{"format": card.reads}],
            "outputs": [{"format": card.gives}],
        },
        "quantitativeAnalysis": {"performanceMetrics": [_metric(figure) for figure in card.figures]},
        "considerations": considered,
    }


def _metric(figure: Measured) -> dict[str, Any]:
    made: dict[str, Any] = {"type": figure.what, "value": _number(figure.value)}
    if figure.part:
        made["slice"] = figure.part
    if figure.low is not None and figure.high is not None:
        made["confidenceInterval"] = {"lowerBound": _number(figure.low), "upperBound": _number(figure.high)}
    return made


def _number(value: float) -> str:
    return f"{value:.6g}"
