"""Writes docs/faults.md from the kinds of fault that certificates name: python docs/faults.py"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.core.findings import KINDS

PAGE = Path(__file__).with_suffix(".md")
REPRODUCED = "the runner's answers reproduced"
FILE = "`preprocess.json` against the run"
#: Fault, kind that the certificate names, and the evidence for it.
FAULTS = (
    (1, "BGR for RGB", "channel-order", f"a probe image through the graph's own preprocessing; {REPRODUCED}"),
    (2, "wrong mean or standard deviation", "normalisation", f"the probe image; {REPRODUCED}; {FILE}"),
    (3, "crop before resize", "crop-before-resize", REPRODUCED),
    (4, "bilinear for bicubic", "interpolation", f"{REPRODUCED}; {FILE}"),
    (5, "wrong crop ratio", "crop-ratio", f"{REPRODUCED}; {FILE}"),
    (6, "NHWC for NCHW", "layout", f"the probe image; {REPRODUCED}"),
    (7, "labels in another order", "label-order", "`labels.json` against the run; the last layer's rows; the logits"),
    (8, "calibration with random noise", "calibration-noise", "ranges that noise explains and images do not"),
    (9, "calibration with one class", "calibration-one-class", "`calibration.json`; ranges that one class explains"),
    (10, "calibration with 4 images", "calibration-too-few", "`calibration.json`: fewer than 16"),
    (11, "stale calibration of another model", "calibration-stale", "ranges that nothing explains; images of no split"),
    (12, "per-tensor weights on depthwise layers", "per-tensor-depthwise", "one step divides all of a layer's weights"),
    (13, "calibration on certify images", "calibration-overlap", "hashes of files and of decoded pictures"),
    (14, "batch norm in training mode", "batch-norm-training", "the graph; answers that depend on the batch"),
    (15, "saturating signed activations", "saturation", "ranges that are never negative, all cut alike"),
    (16, "a channel zeroed", "dead-channel", "weights farther from the float graph's than rounding explains"),
    (17, "a class's row of the head damaged", "damaged-class", "the same in the last layer; one logit off by itself"),
    (
        18,
        "another model's file given as the artifact",
        "another-model",
        "most layers' weights unlike the float graph's",
    ),
)

INTRODUCTION = """\
# Faults that a certificate names

Written by `python docs/faults.py`; do not edit.

Every `edgetl verify` looks for what is known to go wrong between training and device. What it finds stands in the
certificate under `findings`: the kind, a sentence with the figures that show it, the layers concerned, and the remedy.
**fatal** means that the comparison or the deployment is wrong by definition: the verdict is *fail*, whatever the
accuracies are. **warning** means a risk, about which the paired test has the last word.
"""
LIMITS = """\
## What it cannot see

- On grey pictures red and blue are equal: a runner that swaps them gives the very same answers. A swap in the graph is
  found, because the probe image is coloured.
- A runner is recognised by running the bundle's own artifact on images prepared in each wrong way. A mistake that is
  not among them is reported by the ladder's rung, without a name.
- Ranges are compared in the float graph, on images that `calibration.json` names: without the images under the run's
  paths (`--data`), that part is left out.
- Ranges of percentile, entropy or least-squares estimators are cut on purpose, so only gross faults show in them.
- A file that another tool compressed (`--artifact`) may call its layers otherwise: they are then taken in order, if they
  are as many, of the same kinds, and batch norms are folded. Otherwise, and in TFLite files, nobody looks into the graph.
- One class's calibration that leaves the ranges as they are does no harm, and is seen only in the record.
"""


def page() -> str:
    """The whole page."""
    rows = [
        "| | fault | the certificate says | severity | remedy | evidence |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for number, fault, kind, evidence in FAULTS:
        known = KINDS[kind]
        rows.append(
            f"| {number} | {fault} | `{kind}`: {known.title} | {known.severity} | {known.remedy} | {evidence} |"
        )
    named = {kind for _, _, kind, _ in FAULTS}
    others = ["| the certificate says | severity | remedy |", "| --- | --- | --- |"]
    others += [f"| `{k}`: {v.title} | {v.severity} | {v.remedy} |" for k, v in KINDS.items() if k not in named]
    parts = [INTRODUCTION, "\n".join(rows) + "\n", "## Further findings\n", "\n".join(others) + "\n", LIMITS]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
