"""edgetl takes a fine-tuned model to a device and proves, with a paired test, that the transfer survived.

    import edgetl

    run = edgetl.finetune("photos/", out="run")         # or adopt("model.onnx", "photos/", out="run", ...)
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
    from edgetl.core.bundle import Artifact, Bundle
    from edgetl.core.bundle_archive import pack, unpack
    from edgetl.core.data import Dataset
    from edgetl.core.run import Run, load_run
    from edgetl.core.targets import Target, load_targets
    from edgetl.devices import add_device, create_device, find_device, list_devices, probe_device, remove_device
    from edgetl.inputs import Preprocess, load_dataset
    from edgetl.pipeline import bench, demo, export, predict, report, verify
    from edgetl.runtime.loaded import load_bundle
    from edgetl.runtime.monitor import Monitor
    from edgetl.runtime.predictor import Prediction
    from edgetl.serving.server import serve
    from edgetl.tasks import list_tasks
    from edgetl.transfer.backbones import list_backbones
    from edgetl.transfer.choosing.shift import shift
    from edgetl.transfer.finetune import finetune
    from edgetl.transfer.lr_find import find_rate
    from edgetl.transfer.repeated import repeat
    from edgetl.transfer.soup import soup
    from edgetl.transfer.staged import staged
    from edgetl.transfer.strategies import list_strategies
    from edgetl.workflow.adoption.adopt import adopt
    from edgetl.workflow.advise import advise
    from edgetl.workflow.audit import check
    from edgetl.workflow.certify_enrolled import verify_enrolled
    from edgetl.workflow.doctor import doctor
    from edgetl.workflow.enroll_class import enroll, forget
    from edgetl.workflow.exported import Exported
    from edgetl.workflow.fleet import bench_devices, deploy, rollback
    from edgetl.workflow.monitor import monitor
    from edgetl.workflow.rank_backbones import rank
    from edgetl.workflow.retention import retention
    from edgetl.workflow.sign_bundle import sign
    from edgetl.workflow.transfer_outcome import transfer_outcome

_HOMES = {
    "adopt": "edgetl.workflow.adoption.adopt",
    "advise": "edgetl.workflow.advise",
    "Artifact": "edgetl.core.bundle",
    "Bundle": "edgetl.core.bundle",
    "Certificate": "edgetl.certify",
    "Dataset": "edgetl.core.data",
    "EdgetlError": "edgetl.base.errors",
    "Exported": "edgetl.workflow.exported",
    "Monitor": "edgetl.runtime.monitor",
    "Prediction": "edgetl.runtime.predictor",
    "Preprocess": "edgetl.inputs",
    "Run": "edgetl.core.run",
    "Target": "edgetl.core.targets",
    "add_device": "edgetl.devices",
    "bench": "edgetl.pipeline",
    "bench_devices": "edgetl.workflow.fleet",
    "check": "edgetl.workflow.audit",
    "create_device": "edgetl.devices",
    "demo": "edgetl.pipeline",
    "deploy": "edgetl.workflow.fleet",
    "doctor": "edgetl.workflow.doctor",
    "enroll": "edgetl.workflow.enroll_class",
    "export": "edgetl.pipeline",
    "find_device": "edgetl.devices",
    "find_rate": "edgetl.transfer.lr_find",
    "forget": "edgetl.workflow.enroll_class",
    "finetune": "edgetl.transfer.finetune",
    "list_backbones": "edgetl.transfer.backbones",
    "list_devices": "edgetl.devices",
    "list_strategies": "edgetl.transfer.strategies",
    "list_tasks": "edgetl.tasks",
    "load_bundle": "edgetl.runtime.loaded",
    "load_dataset": "edgetl.inputs",
    "load_run": "edgetl.core.run",
    "load_targets": "edgetl.core.targets",
    "monitor": "edgetl.workflow.monitor",
    "pack": "edgetl.core.bundle_archive",
    "probe_device": "edgetl.devices",
    "remove_device": "edgetl.devices",
    "predict": "edgetl.pipeline",
    "rank": "edgetl.workflow.rank_backbones",
    "repeat": "edgetl.transfer.repeated",
    "report": "edgetl.pipeline",
    "retention": "edgetl.workflow.retention",
    "rollback": "edgetl.workflow.fleet",
    "serve": "edgetl.serving.server",
    "shift": "edgetl.transfer.choosing.shift",
    "soup": "edgetl.transfer.soup",
    "sign": "edgetl.workflow.sign_bundle",
    "staged": "edgetl.transfer.staged",
    "transfer_outcome": "edgetl.workflow.transfer_outcome",
    "unpack": "edgetl.core.bundle_archive",
    "verify": "edgetl.pipeline",
    "verify_enrolled": "edgetl.workflow.certify_enrolled",
}

__all__ = [
    "Artifact",
    "Bundle",
    "Certificate",
    "Dataset",
    "EdgetlError",
    "Exported",
    "Monitor",
    "Prediction",
    "Preprocess",
    "Run",
    "Target",
    "__version__",
    "add_device",
    "adopt",
    "advise",
    "bench",
    "bench_devices",
    "check",
    "create_device",
    "demo",
    "deploy",
    "doctor",
    "enroll",
    "export",
    "find_device",
    "find_rate",
    "finetune",
    "forget",
    "list_backbones",
    "list_devices",
    "list_strategies",
    "list_tasks",
    "load_bundle",
    "load_dataset",
    "load_run",
    "load_targets",
    "monitor",
    "pack",
    "predict",
    "probe_device",
    "rank",
    "remove_device",
    "repeat",
    "report",
    "retention",
    "rollback",
    "serve",
    "shift",
    "sign",
    "soup",
    "staged",
    "transfer_outcome",
    "unpack",
    "verify",
    "verify_enrolled",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgetl' has no attribute '{name}'")
    from edgetl.base.extras import missing

    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ImportError as error:
        lacking = missing(error, f"edgetl.{name}")
        if lacking is None:
            raise
        raise lacking from error


def __dir__() -> list[str]:
    return __all__
