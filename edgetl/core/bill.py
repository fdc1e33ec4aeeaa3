"""``bom.cdx.json`` of a bundle as a record: a CycloneDX document that carries its seal among its own properties.

CycloneDX has no room for the fields of other records: ``edgetl:digest`` is the SHA-256 of all else in it,
``edgetl:manifest`` names the bundle, ``edgetl:certificate`` the certificate that its figures are from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import BundleError
from edgetl.base.storage import read_json, readable_json, sha256_json

_PREFIX, _DIGEST = "edgetl:", "edgetl:digest"
_AGAIN = "delete it, then verify this bundle again"


@dataclass(frozen=True)
class BillSeal:
    """To what a bill of materials belongs: digests of the manifest and of the certificate."""

    manifest: str
    certificate: str


def sealed_bill(body: Mapping[str, Any], seal: BillSeal) -> dict[str, Any]:
    """A CycloneDX document with its seal; ``body`` has no properties yet."""
    properties = [{"name": f"{_PREFIX}{name}", "value": value} for name, value in asdict(seal).items()]
    digest = {"name": _DIGEST, "value": sha256_json({**body, "properties": properties})}
    return {**body, "properties": [*properties, digest]}


def read_bill(file: Path, manifest: str) -> dict[str, Any]:
    """Read what :func:`sealed_bill` gave.

    Args:
        file: ``bom.cdx.json``.
        manifest: digest of the bundle that it lies in.

    Raises:
        BundleError: it was altered, or belongs to another bundle.
    """
    record = read_json(file, BundleError)
    try:
        told = {entry["name"]: entry["value"] for entry in record["properties"]}
        seal = BillSeal(*(str(told[f"{_PREFIX}{name}"]) for name in ("manifest", "certificate")))
        body = {name: value for name, value in record.items() if name != "properties"}
        whole = sealed_bill(body, seal) == record and file.read_bytes() == readable_json(record)
    except (TypeError, KeyError, AttributeError, ValueError):
        whole = False
    if not whole:
        raise BundleError(f"{file} was altered or damaged (its digest does not match)", _AGAIN)
    if seal.manifest != manifest:
        raise BundleError(f"{file} belongs to another bundle", _AGAIN)
    return dict(record)
