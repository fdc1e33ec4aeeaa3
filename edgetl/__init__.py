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
    from edgetl.base.errors import EdgetlError
    from edgetl.certify import Certificate
    from edgetl.core.bundle import Artifact, Bundle, load_bundle
    from edgetl.core.data import Dataset
    from edgetl.core.run import Run, load_run
    from edgetl.core.targets import Target
    from edgetl.inputs import load_dataset
    from edgetl.inputs.image import Preprocess
    from edgetl.pipeline import Exported, bench, demo, export, finetune, report, verify
    from edgetl.workflow.fleet import deploy, rollback

_HOMES = {
    "Artifact": "edgetl.core.bundle",
    "Bundle": "edgetl.core.bundle",
    "Certificate": "edgetl.certify",
    "Dataset": "edgetl.core.data",
    "EdgetlError": "edgetl.base.errors",
    "Exported": "edgetl.pipeline",
    "Preprocess": "edgetl.inputs.image",
    "Run": "edgetl.core.run",
    "Target": "edgetl.core.targets",
    "bench": "edgetl.pipeline",
    "demo": "edgetl.pipeline",
    "deploy": "edgetl.workflow.fleet",
    "export": "edgetl.pipeline",
    "finetune": "edgetl.pipeline",
    "load_bundle": "edgetl.core.bundle",
    "load_dataset": "edgetl.inputs",
    "load_run": "edgetl.core.run",
    "report": "edgetl.pipeline",
    "rollback": "edgetl.workflow.fleet",
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
