"""Runs that the benchmarks need and no training makes: ImageNet weights as they are, and a model hostile to 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from edgetl.base.storage import sha256_bytes, sha256_file, write_bytes
from edgetl.core.data import Dataset, Sample
from edgetl.core.run import WEIGHTS, Run, load_run, write_run
from edgetl.core.run_record import RunMetrics
from edgetl.inputs import Preprocess, input_of
from edgetl.tasks import find_task
from edgetl.transfer import backbones, weights
from edgetl.transfer.definitions import preprocess_for
from edgetl.transfer.tasks import scored


def imagenet_run(data: Path, out: Path, certify: int, seed: int = 0) -> Run:
    """EfficientNet-Lite0 with its ImageNet weights as a run over imagenet-sample: one photograph for each class.

    Args:
        data: the folder ``imagenet-sample``; sorted by name, the position is the class index.
        out: the run's folder; made once.
        certify: images to certify on; of the others 128 calibrate and the rest search, 24 of them as val.
        seed: of the draw.
    """
    if (out / "run.json").is_file():
        return load_run(out)
    files = sorted(data.glob("*.jpg"))
    names = ["certify"] * certify + ["calibration"] * 128 + ["val"] * 24
    names += ["search"] * (len(files) - len(names))
    order = np.random.default_rng(seed).permutation(len(files))
    split = {int(index): name for index, name in zip(order, names, strict=True)}
    samples = []
    for label, file in enumerate(files):
        digest = sha256_file(file)
        samples.append(Sample(file.name, label, digest, digest, split[label]))
    dataset = Dataset(data.resolve(), tuple(file.stem for file in files), tuple(samples))
    backbone, preprocess = backbones.find("efficientnet_lite0"), preprocess_for("efficientnet_lite0")
    body = weights.build("efficientnet_lite0", len(files)).eval()
    state = {k: v.contiguous() for k, v in body.state_dict().items()}
    write_bytes(out / WEIGHTS, safetensors.torch.save(state))
    val = _scores(body, dataset, preprocess)
    return write_run(
        out,
        backbone=backbone.name,
        strategy="linear-probe",
        dataset=dataset,
        input_record=preprocess.to_json(),
        settings={"seed": seed, "epochs": 0, "weights": "ImageNet, as they are"},
        metrics=RunMetrics(val=val),
        lineage={"backbone": backbone.name, "weights": backbone.weights, "licence": backbone.licence},
    )


def _scores(body: Any, dataset: Dataset, preprocess: Preprocess) -> dict[str, Any]:
    from edgetl.transfer.model import Deployable

    model = Deployable(body, preprocess).eval()
    with torch.inference_mode():
        logits = model(torch.from_numpy(preprocess.batch(dataset.paths("val"))["image"])).numpy()
    return dict(scored(find_task(None), {"logits": logits}, dataset.labels("val")).to_json())


def hostile_run(
    run: Run, out: Path, stages: Sequence[int], spread: float = 32.0, seed: int = 0
) -> tuple[Run, set[str]]:
    """A copy of a run of EfficientNet-Lite0 that computes the same function and is hostile to 8-bit numbers.

    In each stage named, the channels of the residual stream are multiplied by factors spread log-uniformly over
    1/spread … spread (in the batch norm behind each block's last convolution), and the layers that read the stream
    divide by them. Returns the run and the torch names of the rescaled layers: those that write, those that read.
    """
    state = dict(safetensors.torch.load_file(run.weights))
    draw = np.random.default_rng(seed)
    touched: set[str] = set()
    for stage in stages:
        blocks = sorted({key.split(".")[2] for key in state if key.startswith(f"blocks.{stage}.")}, key=int)
        last = [f"blocks.{stage}.{i}" for i in blocks]
        writers = [(f"{b}.conv_pw", f"{b}.bn2") if stage == 0 else (f"{b}.conv_pwl", f"{b}.bn3") for b in last]
        following = f"blocks.{stage + 1}.0.conv_pw"
        readers = [f"{b}.conv_pw" for b in last[1:]] + [following if f"{following}.weight" in state else "conv_head"]
        channels = len(state[f"{writers[0][1]}.weight"])
        factors = torch.from_numpy(np.exp(draw.uniform(-np.log(spread), np.log(spread), channels))).float()
        for convolution, norm in writers:
            for part in ("weight", "bias"):
                state[f"{norm}.{part}"] = state[f"{norm}.{part}"] * factors
            touched.add(convolution)
        for reader in readers:
            state[f"{reader}.weight"] = state[f"{reader}.weight"] / factors[None, :, None, None]
            touched.add(reader)
    data = safetensors.torch.save({k: v.contiguous() for k, v in state.items()})
    write_bytes(out / WEIGHTS, data)
    lineage = {**run.lineage, "rescaled": sorted(touched), "spread": spread, "weights_sha256": sha256_bytes(data)}
    made = write_run(
        out, backbone=run.backbone, strategy=run.strategy, dataset=run.dataset, input_record=input_of(run).to_json(),
        settings=run.settings, metrics=run.metrics, lineage=lineage,
    )  # fmt: skip
    return made, touched
