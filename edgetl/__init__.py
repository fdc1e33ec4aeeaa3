"""edgetl takes a fine-tuned model to a device and proves, with a paired test, that the transfer survived.

    import edgetl

    run = edgetl.finetune("photos/", out="run")
    results = edgetl.export(run, targets=["jetson", "intel-cpu"], out="out")
    edgetl.bench("out/intel-cpu")
    edgetl.verify("out/intel-cpu", margin=0.005)
    edgetl.deploy("out/jetson", devices=["my-jetson"])
    edgetl.verify(reference=ref, deployed=dep, labels=y, margin=0.01)   # integer arrays from anywhere
    edgetl.report(["out/jetson", "out/intel-cpu"], out="report.html")

The verbs have the names and options of the command line. Importing edgetl imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgetl.bundle import Artifact, Bundle, load_bundle
    from edgetl.certify import Certificate
    from edgetl.data import Dataset, load_dataset
    from edgetl.errors import EdgetlError
    from edgetl.fleet import deploy, rollback
    from edgetl.pipeline import Exported, bench, demo, export, finetune, report, verify
    from edgetl.preprocess import Preprocess
    from edgetl.run import Run, load_run
    from edgetl.targets import Target

_HOMES = {
    "Artifact": "edgetl.bundle",
    "Bundle": "edgetl.bundle",
    "Certificate": "edgetl.certify",
    "Dataset": "edgetl.data",
    "EdgetlError": "edgetl.errors",
    "Exported": "edgetl.pipeline",
    "Preprocess": "edgetl.preprocess",
    "Run": "edgetl.run",
    "Target": "edgetl.targets",
    "bench": "edgetl.pipeline",
    "demo": "edgetl.pipeline",
    "deploy": "edgetl.fleet",
    "export": "edgetl.pipeline",
    "finetune": "edgetl.pipeline",
    "load_bundle": "edgetl.bundle",
    "load_dataset": "edgetl.data",
    "load_run": "edgetl.run",
    "report": "edgetl.pipeline",
    "rollback": "edgetl.fleet",
    "verify": "edgetl.pipeline",
}

__all__ = [
    "Artifact",
    "Bundle",
    "Certificate",
    "Dataset",
    "EdgetlError",
    "Exported",
    "Preprocess",
    "Run",
    "Target",
    "__version__",
    "bench",
    "demo",
    "deploy",
    "export",
    "finetune",
    "load_bundle",
    "load_dataset",
    "load_run",
    "report",
    "rollback",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgetl' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
