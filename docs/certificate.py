"""Writes ``certificate.md`` from the text here and the results of ``benchmarks/size_simulation.py``.

python docs/certificate.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_name("certificate.md")
RESULTS = ROOT / "benchmarks" / "results"

sys.path.insert(0, str(ROOT))

LABELS = "4 labels of 10 to 50 %"
TEXT = """\
# What a certificate claims, and how often it would be wrong

Written by `python docs/certificate.py`; do not edit.

## The claim

On the certify split every image goes, from its file, through the trained torch model and through the deployed artifact.
What counts is which images only one of the two gets right. *pass*: with 95 % confidence (`--alpha`) the loss of
accuracy is smaller than the margin (`--margin`, 1 point by default), no class has collapsed, and nothing is wrong by
definition. *fail*: a loss of the margin or more is proven, or was observed and is more than chance (exact one-sided
McNemar test), or a class collapsed, or a fault makes the comparison void. *underpowered*: too few images to rule out a
loss of the margin, or to tell the one observed from chance; `n_needed` would give a pass of equal models with
probability 80 % at the discordance observed. A model without a loss fails in at most 5 % of the cases, however few
its images are: by the loss of all images or by a class that collapsed, each of which has half of the level (the joint
rates stand below); of several tasks each has its part.

**What belongs together counts once.** Frames of a scene flip together: 500 images in bursts of 5, each taken for itself, pass a
true loss of the margin in up to a quarter of the cases. Where samples have a group (a column `group`, `--group-by`), `units` says
how many independent ones there are. The interval then is a bootstrap of whole groups (Field and Welsh 2007) with one group
that was not seen, as large as the largest, and classes are tested by exact sign flips of their groups. The score test of
clustered pairs (Obuchowski 1998; Yang, Sun and Hardin 2010) was tried and is not used: where a handful of groups carry the loss
it passes far too often. Where every sample is a group of its own, the exact test is what it was.

**Any number of looks.** Every reading of the certify split is entered in the run's `readings.jsonl`: terms, verdict, device,
artifact and time. A certificate quotes the readings of its target that came before it (`readings`); the first one, by
`edgetl export`, registers margin, level and metric, and a later certificate on others has `registered: false` and a
note. The same predictions on the same terms are no further look. `--sequential` is a betting confidence sequence
(Waudby-Smith and Ramdas 2024) on the paired differences: read after every new batch, for as long as one likes, it passes a true
loss of the margin with probability 5 % at most. Its price is about twice the images; a note of the certificate states both
numbers.

The interval is Tango's (1998) score interval of the difference of two paired proportions. With at most 200 discordant
images it gives way to the exact unconditional bound wherever that is more cautious. Classes are tested by exact
one-sided McNemar tests, adjusted by Holm (1979). Balanced accuracy, macro-AP, micro-F1 and regression metrics go through
a paired percentile bootstrap to which one unseen sample is added, because the plain one has no width where nothing
changed. It is the worst that a sample can do, so that the bound holds where few samples carry the loss.

That has its price. Of accuracy one sample in n is lost at most; of macro-AP a sample that puts a label falsely above all
others costs a label of m samples about log(m) / m, and a sample can be wrong in every label at once. Without such a
sample in sight a pass needs enough of them that one would have been seen: {needed} samples at a margin of 0.01 (0.02,
0.05) for macro-AP of two models that are always right, with {labels}, and {other} for micro-F1. No test that holds
whatever the fault is can do with far fewer. With a small certify split judge by micro-F1 or subset accuracy, or name
the greater margin that it can show.

The errors of a regression have no worst sample, and no interval of a mean holds for every distribution (Bahadur and
Savage 1956). The certificate calls itself conditional and says what is assumed instead: that no sample unseen is off by
more than a standard deviation of the labels, or the greatest change seen. The last row on regression shows what happens
where that is wrong. `--value-range LOW HIGH` says in what range all values lie: the unseen sample then is off by all of
it, and nothing else is assumed.

| field | what |
| --- | --- |
| `ladder` | trained torch model, float ONNX, Q/DQ graph in float, runtime on the host, runtime on the device: accuracy, agreement, logit distance and divergence of each from the one above; `first_divergence` names the first that loses the margin or a class |
| `layers` | each layer quantized by itself, noise measured at the layer that reads it; worst first, in torch's names |
| `findings` | what is known to be wrong, see [faults.md](faults.md) |
| `probabilities` | divergence, top-1 agreement, expected calibration error, Brier score, log loss, and where the confidence threshold that keeps 90 % of the images went |
| `transfer_gain` | (deployed - baseline) / (reference - baseline) with an interval, and whether the transfer helped at all |
| `robustness` | the same paired test under blur, noise, JPEG, brightness and contrast at five severities (`--corruptions`), and whether compression hurts more there than on clean images |
| `units` | how many of the `n` samples are independent; groups count once |
| `readings` | of this target's certify split before this one: terms, verdict, device, artifact, time |
| `repair` | what was tried on the search split before this model was chosen |
| `hashes` | of model, weights, splits, preprocessing, manifest and predictions |

The predictions stay in the bundle, so other margins, levels and metrics need no inference. `edgetl verify --check`
works out again all that predictions and bundle determine, and refuses a certificate that says otherwise, even if it was
sealed again, and predictions that are not the bundle's. What it cannot work out again is named as taken on trust, unless
the bundle is signed: [untrusted.md](untrusted.md).

## How often it would be wrong

"""


def needed(result: dict[str, Any], metric: str) -> str:
    """Samples that a pass needs at the margins of 0.01, 0.02 and 0.05, with the labels that the page names."""
    found = next(c["samples"] for c in result["samples_needed"] if (c["metric"], c["labels"]) == (metric, LABELS))
    first, *others = (f"{found[margin]:,}" for margin in ("0.01", "0.02", "0.05"))
    return f"{first} ({', '.join(others)})"


def page() -> str:
    """The whole page."""
    from benchmarks import group_sizes, joint_errors, sequential_looks
    from benchmarks.size_simulation import report

    result, *others = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("size_simulation", "group_sizes", "joint_errors", "sequential_looks")
    )
    text = TEXT.format(needed=needed(result, "macro-AP"), other=needed(result, "micro-F1"), labels=LABELS)
    modules = (group_sizes, joint_errors, sequential_looks)
    more = (module.report(found) for module, found in zip(modules, others, strict=True))
    return text + "\n\n".join([report(result), *more]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
