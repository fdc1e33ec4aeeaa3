"""Texts: MiniLM's weights in place, its arithmetic, a probe and fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from edgetl.base.errors import EdgetlError
from edgetl.base.progress import silent
from edgetl.core.run import Run
from edgetl.inputs import Text, input_of
from edgetl.transfer import bert
from edgetl.transfer.backbones import find
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import Deployable, load_model
from edgetl.transfer.stores import store_of
from edgetl.transfer.weights import build, packaged
from edgetl.workflow.reference import TorchReference, reproduced
from tests.reviews import write_reviews

pytest.importorskip("tokenizers", reason="the extra text is not installed")
OPTIONS: dict[str, Any] = {"precision": "32-true", "accelerator": "cpu", "batch_size": 16}
SMALL = bert.Shape(words=50, positions=20, width=16, inner=32, layers=2, heads=4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 sentences about food and about the weather, of different lengths."""
    return write_reviews(tmp_path_factory.mktemp("reviews") / "reviews.csv")


@pytest.fixture(scope="module")
def probe(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finetune(reviews, tmp_path_factory.mktemp("probe") / "run", **OPTIONS, strategy="linear-probe")


def test_a_finished_run_is_not_done_again(probe: Run, reviews: Path) -> None:
    stamp = (probe.path / "run.json").stat().st_mtime_ns
    assert finetune(reviews, probe.path, **OPTIONS, strategy="linear-probe").digest == probe.digest
    assert (probe.path / "run.json").stat().st_mtime_ns == stamp


def test_a_linear_probe_of_minilm_tells_food_from_weather(probe: Run) -> None:
    assert (probe.task, probe.backbone) == ("text-classification", "minilm")
    assert probe.metrics.val["accuracy"] > 0.9
    assert probe.lineage["licence"] == "Apache-2.0"
    assert probe.lineage["architecture"] == "transformers: all-MiniLM-L6-v2"
    definition = input_of(probe)
    assert isinstance(definition, Text)
    model = load_model(probe)
    outputs = probe.val_outputs
    assert outputs is not None
    for path, expected in zip(probe.dataset.paths("val"), outputs["logits"], strict=True):
        alone = model.fed(definition.feeds(path), torch.device("cpu")).detach().numpy()[0]
        # In the run it was one of a batch, filled up to the longest.
        assert alone == pytest.approx(expected, abs=1e-4)
    recorded, again, _ = reproduced(probe, TorchReference(probe).outputs("val", silent))
    assert recorded == again


def test_every_tensor_of_the_package_is_in_its_place_but_the_poolers() -> None:
    file = packaged(find("minilm"))
    theirs = safetensors.torch.load_file(file)
    ours = build("minilm", 3).state_dict()
    left_out = {"pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"}
    assert set(theirs) - left_out == set(ours) - {"head.weight", "head.bias"}
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items() if name in theirs)
    assert find("minilm").parameters == sum(v.numel() for n, v in ours.items() if not n.startswith("head."))


def test_bert_equals_torchs_own_layers() -> None:
    torch.manual_seed(0)
    model = bert.Bert(SMALL, 3).eval()
    ids = torch.randint(0, 50, (3, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [5], [1]])).long()
    x = model.embed(ids)
    for layer in model.encoder["layer"]:
        own = torch.nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", 1e-12, batch_first=True).eval()
        maps, out = layer.attention["self"], layer.attention["output"]
        three = [maps[name] for name in ("query", "key", "value")]
        pairs = (
            (own.self_attn.in_proj_weight, torch.cat([m.weight for m in three])),
            (own.self_attn.in_proj_bias, torch.cat([m.bias for m in three])),
        )
        with torch.no_grad():
            for place, value in pairs:
                place.copy_(value)
        own.self_attn.out_proj.load_state_dict(out["dense"].state_dict())
        own.norm1.load_state_dict(out["LayerNorm"].state_dict())
        own.linear1.load_state_dict(layer.intermediate["dense"].state_dict())
        own.linear2.load_state_dict(layer.output["dense"].state_dict())
        own.norm2.load_state_dict(layer.output["LayerNorm"].state_dict())
        x = own(x, src_key_padding_mask=mask == 0)
    means = torch.stack([row[: int(n)].mean(0) for row, n in zip(x, mask.sum(1), strict=True)])
    with torch.inference_mode():
        assert (model(ids, mask) - model.head(means)).abs().max() < 1e-5


def test_what_lies_behind_the_mask_changes_nothing() -> None:
    torch.manual_seed(0)
    model, ids = bert.Bert(SMALL, 3).eval(), torch.randint(0, 50, (1, 6))
    longer = torch.cat([ids, torch.randint(0, 50, (1, 5))], 1)
    mask = torch.tensor([[1] * 6 + [0] * 5])
    with torch.inference_mode():
        assert torch.equal(model(longer, mask).argmax(), model(ids, torch.ones_like(ids)).argmax())
        assert (model(longer, mask) - model(ids, torch.ones_like(ids))).abs().max() < 1e-6


def test_texts_in_the_store_equal_the_definitions_batches(probe: Run) -> None:
    definition, paths = input_of(probe), probe.dataset.paths("train")
    store = store_of(definition, paths)
    assert store.lengths is not None
    seen: list[int] = []
    for indices, batch in store.batches(7):
        expected = definition.batch([paths[index] for index in indices])
        assert all(np.array_equal(batch[name], expected[name]) for name in ("input_ids", "attention_mask"))
        seen += indices
    assert sorted(seen) == list(range(len(paths)))


def test_fine_tuning_leaves_the_tables_of_words_as_they_are(reviews: Path, tmp_path: Path) -> None:
    run = finetune(reviews, tmp_path / "run", **{**OPTIONS, "batch_size": 36}, epochs=1)
    assert run.metrics.epochs_run == 1
    assert run.metrics.val["accuracy"] > 0.9
    tuned, start = load_model(run).backbone.state_dict(), build("minilm", 2).state_dict()
    changed = {name for name in start if not torch.equal(start[name], tuned[name])}
    assert not {name for name in changed if name.endswith("_embeddings.weight")}
    # The best epoch may be the start.
    assert len(changed) > 90 or not run.metrics.best_epoch


def test_what_means_nothing_for_texts_is_refused(reviews: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="an image size means nothing to the backbone 'minilm'"):
        finetune(reviews, tmp_path / "run", image_size=64)
    with pytest.raises(EdgetlError, match=r"'mlp' takes arrays, .* holds texts: use --backbone minilm"):
        finetune(reviews, tmp_path / "run", backbone="mlp")
    assert not (tmp_path / "run").exists()


def test_the_network_names_its_inputs_and_its_output(probe: Run) -> None:
    model = load_model(probe)
    assert isinstance(model, Deployable)
    assert [spec.name for spec in model.definition.tensors] == ["input_ids", "attention_mask"]
    assert (model.output, model.width) == ("logits", 2)
