"""How the golden bundle, exported when manifests had schema 2, came to have schema 3: the models and answers are kept.

python tests/golden/from_schema_2.py BUNDLE
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetl.base.schema import from_json
from edgetl.base.storage import read_json, read_sealed, write_sealed
from edgetl.core.bundle import CERTIFICATE, MANIFEST, Artifact, load_bundle, write_manifest
from edgetl.core.manifest import Manifest


def converted(old: dict[str, Any]) -> Manifest:
    """The manifest in its new shape; files and artifacts are still the old ones."""
    target, run = dict(old["target"]), dict(old["run"])
    sources: dict[tuple[str, str], list[str]] = {}
    for figure, pages in target["sources"].items():
        for page in pages:
            sources.setdefault((page["title"], page["url"]), []).append(figure)
    target["sources"] = [{"title": t, "url": u, "figures": figures} for (t, u), figures in sources.items()]
    run["input"] = run.pop("preprocess")
    repair = {**old["repair"], "trials": [_renamed(trial) for trial in old["repair"]["trials"]]}
    return from_json(Manifest, {**old, "target": target, "run": run, "repair": repair, "schema": 3}, MANIFEST)


def _renamed(trial: dict[str, Any]) -> dict[str, Any]:
    names = {"rung": "remedy", "accuracy": "score", "kl": "divergence"}
    return {names.get(key, key): value for key, value in trial.items()}


def certified(old: dict[str, Any]) -> dict[str, Any]:
    """The certificate in its new shape; edgetl verify then fills in the scores, which follow from the predictions."""
    names = ("difference", "ci_low", "ci_high", "verdict", "margin")
    both = {"reference": old["reference_accuracy"], "deployed": old["deployed_accuracy"], "unit": "share"}
    scores = {"accuracy": {**{name: old[name] for name in names}, **both}}
    repair = {**old["repair"], "trials": [_renamed(trial) for trial in old["repair"]["trials"]]}
    ladder = [{**rung, "score": rung["accuracy"]} for rung in old["ladder"]]
    new = {"task": "classification", "sample": "image", "scores": scores, "repair": repair, "ladder": ladder}
    return {**old, **new, "schema": 3}


def main(folder: Path) -> None:
    """Convert a bundle in place: its manifest, and the digest by which its certificate names that."""
    old, certificate = read_sealed(folder / MANIFEST), read_json(folder / CERTIFICATE)
    manifest = converted(old)
    artifacts = {
        role: Artifact(a.backend, folder / a.file, a.precision, a.device) for role, a in manifest.artifacts.items()
    }
    (folder / CERTIFICATE).unlink()
    write_manifest(folder, replace(manifest, files={}), artifacts)
    digest = load_bundle(folder).digest
    write_sealed(
        folder / CERTIFICATE,
        {**certified(certificate), "manifest": digest, "hashes": {**certificate["hashes"], "manifest": digest}},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
