"""A stranger adds things: one file and one line each, in a copy of the package, and the rest works with them.

The line stands in a visible list; its import stands above it.
"""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.copies import Copy


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """The package as it is."""
    return Copy.made(tmp_path / "copy")


READER = '''
"""A JSON object in each line: ``text`` and ``label``."""

import json
from pathlib import Path

from edgetl.core.data.readers.base import Listing, Reader, numbered, write_samples
from edgetl.core.data.samples import Sample


def _read(path: Path, into: Path) -> Listing:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    classes = tuple(sorted({row["label"] for row in rows}))
    names = numbered(len(rows), ".txt")
    write_samples(into / "texts", {name: row["text"].encode() for name, row in zip(names, rows)})
    samples = [Sample(f"texts/{name}", classes.index(row["label"]), "", "") for name, row in zip(names, rows)]
    return Listing(into, classes, tuple(samples))


READER = Reader(
    name="lines",
    about="a .jsonl file with text and label in each line",
    takes=lambda source: Path(source).suffix == ".jsonl",
    sniff=lambda path: (".txt", "class"),
    read=_read,
    writes=True,
)
'''


def test_a_reader(copy: Copy) -> None:
    copy.add("edgetl/core/data/readers/lines.py", READER)
    copy.enter("edgetl/core/data/readers/__init__.py", "lines", before="texts")
    rows = [json.dumps({"text": f"sentence {index}", "label": "ab"[index % 2]}) for index in range(60)]
    (copy.root / "data.jsonl").write_text("\n".join(rows))
    found = copy.run(
        "import json, edgetl\n"
        "from edgetl.inputs import what\n"
        "data = edgetl.load_dataset('data.jsonl')\n"
        "print(json.dumps([what('data.jsonl'), data.classes, len(data.samples), data.sizes()['certify']]))"
    )
    assert found == [["text", "class"], ["a", "b"], 60, 12]
    refused = copy.run(
        "import json, edgetl\n"
        "try: edgetl.load_dataset('gone')\n"
        "except edgetl.EdgetlError as error: print(json.dumps(str(error)))"
    )
    assert "a .jsonl file" in refused


INPUT = '''
"""Sound: .wav files of 16 bit and one channel, cut or filled up to a length."""

import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_bytes, sha256_json
from edgetl.core.tensors import TensorSpec
from edgetl.inputs.base import InputKind


@dataclass(frozen=True)
class Sound:
    kind: ClassVar[str] = "sound"
    length: int
    files: ClassVar = {}

    @property
    def tensors(self):
        return (TensorSpec("sound", "float32", (None, self.length)),)

    @property
    def digest(self):
        return sha256_json(self.to_json())

    def feeds(self, source):
        heard = np.frombuffer(read(source), "<i2")[: self.length].astype(np.float32) / 32768
        return {"sound": np.pad(heard, (0, self.length - len(heard)))[None]}

    def batch(self, sources):
        return {"sound": np.concatenate([self.feeds(source)["sound"] for source in sources])}

    def to_json(self):
        return {"kind": self.kind, **asdict(self)}


def read(path: Path) -> bytes:
    try:
        with wave.open(str(path)) as stream:
            return stream.readframes(stream.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(f"{path} is no .wav file ({error})", "remove it") from error


KIND = InputKind(
    name="sound",
    about=".wav files of 16 bit and one channel; float32",
    noun="recording",
    suffixes=(".wav",),
    read=lambda record, folder: Sound(record["length"]),
    fields=frozenset({"length"}),
    given=lambda record, folder: Sound(record["length"]),
    fingerprint=lambda path: sha256_bytes(read(path)),
)
'''


def test_an_input(copy: Copy) -> None:
    copy.add("edgetl/inputs/sound.py", INPUT)
    copy.enter("edgetl/inputs/kinds.py", "sound", before="tensor")
    for index in range(40):
        file = copy.root / "data" / ("low", "high")[index % 2] / f"{index}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(file), "wb") as stream:
            stream.setparams((1, 2, 8000, 0, "NONE", "NONE"))
            stream.writeframes(np.full(50 + index, 500 * index, "<i2").tobytes())
    (copy.root / "data" / "low" / "bad.wav").write_text("no sound")
    (copy.root / "p.toml").write_text('kind = "sound"\nlength = 60')
    found = copy.run(
        "import json, edgetl\n"
        "from edgetl.inputs import read_input, what\n"
        "data, heard = edgetl.load_dataset('data'), read_input('p.toml')\n"
        "batch = heard.batch(data.paths('certify'))['sound']\n"
        "fits, reason = heard.tensors[0].accepts(batch), data.skipped[0].reason\n"
        "print(json.dumps([what('data'), len(data.samples), reason, batch.shape, fits]))"
    )
    kind, count, reason, shape, accepted = found
    assert kind == ["sound", "class"]
    assert (count, shape, accepted) == (40, [8, 60], True)
    assert reason.startswith("the file is no .wav file")


STRATEGY = '''
"""The head is drawn at random, and every mistake costs the same."""

from torch.nn import functional

from edgetl.transfer.strategies.base import HeadSpec, LossTerm, ParamPolicy, Schedule, Strategy


def plain(epochs: int = 2) -> Strategy:
    """From a random head, by plain cross-entropy."""
    term = LossTerm("plain", lambda step: functional.cross_entropy(step.outputs, step.targets))
    schedule = Schedule(epochs=epochs, learning_rate=1e-3, patience=9)
    return Strategy(ParamPolicy(), HeadSpec(start="random"), (term,), schedule)
'''


def test_a_strategy(copy: Copy) -> None:
    copy.add("edgetl/transfer/strategies/plain.py", STRATEGY)
    file = copy.root / "edgetl/transfer/strategies/__init__.py"
    line = '    "fine-tune": fine_tuning.fine_tune,\n'
    text = file.read_text().replace(line, f'{line}    "plain": plain.plain,\n')
    file.write_text(text.replace("    lora,\n", "    lora,\n    plain,\n"))
    rng = np.random.default_rng(0)
    np.savez(copy.root / "data.npz", x=rng.normal(0, 1, (60, 4)).astype(np.float32), y=np.arange(60) % 2)
    found = copy.run(
        "import json, edgetl\n"
        "options = {'strategy': 'plain', 'epochs': 1, 'accelerator': 'cpu', 'precision': '32-true'}\n"
        "run = edgetl.finetune('data.npz', 'run', **options)\n"
        "from edgetl.transfer.strategies import list_strategies\n"
        "named = {row['name']: row['description'] for row in list_strategies()}\n"
        "print(json.dumps([run.strategy, run.metrics.epochs_run, run.settings['details']['terms'], named['plain']]))"
    )
    assert found == ["plain", 1, ["plain"], "From a random head, by plain cross-entropy."]


REHEARSAL = '''
"""Old samples beside new ones, through a bottleneck that is folded away before the model is saved."""

import torch
from torch import nn
from torch.nn import functional

from edgetl.transfer.classifier import head_of
from edgetl.transfer.strategies.base import HeadSpec, LossTerm, Need, ParamPolicy, Schedule, Strategy, TaskLoss, Trainee


def rehearsal(share: float = 0.5) -> Strategy:
    """New samples and old ones.

    Args:
        share: of the old ones in the loss, from 0 to 1.
    """

    def old(step):
        batch = step.streams["replay"]
        return functional.cross_entropy(step.feed(step.model, batch.inputs), batch.targets)

    return Strategy(
        ParamPolicy(trains="added,head", batch_norm="train"),
        HeadSpec(),
        (TaskLoss(1 - share), LossTerm("old samples", old, lambda done: share)),
        Schedule(epochs=2, learning_rate=1e-2, patience=9),
        needs=(Need("replay", "old samples"),),
        prepare=shifted,
    )


def shifted(network, streams):
    name, head = head_of(network.backbone)
    shift = nn.Linear(head.in_features, head.in_features)
    nn.init.eye_(shift.weight)
    nn.init.zeros_(shift.bias)
    network.backbone.blocks.append(Less(shift))

    def folded():
        with torch.no_grad():
            head.bias += head.weight @ shift.bias
            head.weight.copy_(head.weight @ shift.weight)
        del network.backbone.blocks[-1]
        return network

    return Trainee(network, folded)


class Less(nn.Module):
    """What a block adds so that its outcome is the shift alone."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, x):
        return self.shift(x) - x
'''


def test_a_strategy_with_a_need_an_option_and_layers_of_its_own(copy: Copy) -> None:
    copy.add("edgetl/transfer/strategies/rehearsal.py", REHEARSAL)
    file = copy.root / "edgetl/transfer/strategies/__init__.py"
    line = '    "lora": lora.lora,\n'
    text = file.read_text().replace(line, f'{line}    "rehearsal": rehearsal.rehearsal,\n')
    file.write_text(text.replace("    lora,\n", "    lora,\n    rehearsal,\n"))
    rng = np.random.default_rng(0)
    for name, count in (("new", 60), ("old", 20)):
        x = rng.normal(0, 1, (count, 4)).astype(np.float32)
        np.savez(copy.root / f"{name}.npz", x=x, y=(x[:, 0] > 0).astype(int))
    found = copy.run(
        "import json, edgetl, torch\n"
        "options = {'strategy': 'rehearsal', 'accelerator': 'cpu', 'batch_size': 8, 'epochs': 2}\n"
        "try: edgetl.finetune('new.npz', 'none', **options)\n"
        "except edgetl.EdgetlError as error: refused = str(error)\n"
        "run = edgetl.finetune('new.npz', 'run', **options, retain='old.npz', set={'share': '0.3'})\n"
        "from edgetl.tasks import find_task\n"
        "from edgetl.transfer.model import load_model, val_outputs\n"
        "from edgetl.transfer.tasks import scored\n"
        "again = val_outputs(load_model(run), run.dataset, torch.device('cpu'))\n"
        "again = scored(find_task(run.task), again, run.dataset.labels('val')).metrics['accuracy']\n"
        "(listed,) = edgetl.list_strategies('rehearsal')\n"
        "print(json.dumps([refused, run.settings['options'], run.lineage['streams'], run.lineage['trained'],\n"
        "    [run.metrics.val['accuracy'], again], run.history[-1]['epoch'], [o['about'] for o in listed['options']],\n"
        "    len(load_model(run).backbone.blocks)]))"
    )
    refused, options, streams, trained, (recorded, again), epochs, about, blocks = found
    assert refused == "the strategy 'rehearsal' needs old samples: give --retain"
    assert options == {"share": 0.3}
    assert streams == {"replay": {"samples": 20, "left_out": 0}}
    assert trained["tensors"] == 4
    assert recorded == again
    assert (epochs, about, blocks) == (2, ["of the old ones in the loss, from 0 to 1."], 2)


REMEDY = '''
"""Classifiers' last layer in float."""

from collections.abc import Iterable
from dataclasses import replace

from edgetl.compress.recipes import with_changes
from edgetl.compress.repair import Attempt, Means


def last_layer(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """The dense layers in float."""
    if best.recipe is None:
        return "nothing is quantized"
    recipe = with_changes(best.recipe, exclude_operators=("Gemm",))
    return [replace(best, change="dense layers in float", recipe=recipe)]
'''


def test_a_remedy(copy: Copy) -> None:
    copy.add("edgetl/compress/remedies/dense.py", REMEDY)
    file = copy.root / "edgetl/compress/remedies/__init__.py"
    line = '    "calibration samples": settings.calibration_samples,\n'
    text = file.read_text().replace(line, f'    "last layer": dense.last_layer,\n{line}')
    file.write_text(text.replace("import settings, training", "import dense, settings, training"))
    found = copy.run(
        "import json\n"
        "from edgetl.compress.outcome import Outcome\n"
        "from edgetl.compress.recipes import Recipe\n"
        "from edgetl.compress.remedies import REMEDIES\n"
        "from edgetl.compress.repair import Attempt, Means, try_remedies\n"
        "recipe = Recipe('mine', 'onnxruntime', ('x86-64',), 'onnxruntime', 'int8', True, selection='random', size=8,\n"
        "                estimator='min-max', activations='uint8', bias='int32')\n"
        "means = Means('dense', 8, lambda precision: None, lambda best: [], lambda best: ('', ''),\n"
        "              lambda best: ('', ''), lambda best: [])\n"
        "def measure(attempt):\n"
        "    loss = 0.0 if 'Gemm' in attempt.recipe.exclude_operators else 0.1\n"
        "    return Outcome(200, 0.9, -loss, -loss, round(200 * loss), 0, loss, (), 1.0, None)\n"
        "first = Attempt('as it is', 'int8', recipe)\n"
        "done = try_remedies(first, REMEDIES, means, measure, margin=0.01, minutes=1.0)\n"
        "record = done.record('accuracy', 'share')\n"
        "print(json.dumps([record.chosen, record.best.change, record.survived, len(record.trials)]))"
    )
    assert found == ["last layer", "dense layers in float", True, 2]
