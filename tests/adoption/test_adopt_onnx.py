"""``edgetl adopt model.onnx``: a foreign file becomes a run, from which everything else follows as from any other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgetl
from edgetl import check
from edgetl.core.adoption import MAYBE_SEEN, NOT_VERIFIED
from edgetl.core.data import SPLITS
from edgetl.core.run import load_run
from tests.adoption.foreign import CLASSES, STD, Owned, exported, network, photographs, squashed
from tests.cli.test_bad_input import refused

Cli = Callable[..., subprocess.CompletedProcess[str]]


def given(owner: Owned, out: Path, **options: object) -> list[object]:
    """The command line that adopts the owner's file."""
    words: list[object] = ["adopt", owner.onnx, "--data", owner.photos, "--out", out, "--quiet"]
    for name, value in {"preprocess": owner.folder / "prep.json", **options}.items():
        words += [] if value is None else [f"--{name}", value]
    return words


def test_an_adopted_model_goes_all_the_way(owner: Owned, here: Cli, tmp_path: Path) -> None:
    done = here(*given(owner, tmp_path / "run", answers=owner.answers(tmp_path / "a.npz")), "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["strategy"], record["task"], record["classes"]) == ("adopted", "classification", list(CLASSES))
    assert record["adoption"]["verified"] == "answers"
    assert record["adoption"]["evidence"]["answers"]["distance"] < 1e-4
    assert record["adoption"]["parity"]["max_abs"] < 1e-5
    assert "Softmax at the end cut off" in record["adoption"]["changes"]
    run = load_run(tmp_path / "run")
    assert {name for name in SPLITS if run.dataset.split(name)} == {"calibration", "search", "certify"}
    (made,) = edgetl.export(run, targets="x86-generic", out=tmp_path / "out", repair=False, bench=False)
    certificate = made.certificate
    assert (certificate.precision, certificate.executed) == ("int8", "host")
    assert certificate.reference_score == np.mean(
        [
            owner.logits[i].argmax() == CLASSES.index(f.parent.name)
            for i, f in enumerate(owner.files)
            if _certified(run, f)
        ]
    )
    assert MAYBE_SEEN in certificate.notes
    assert NOT_VERIFIED not in certificate.notes
    assert check(made.bundle.path) is None
    assert here("report", run.path, made.bundle.path, "--out", tmp_path / "r.html").returncode == 0
    name = edgetl.load_bundle(made.bundle.path).predict(owner.files[0]).label
    assert name == CLASSES[owner.logits[0].argmax()]


def _certified(run: edgetl.Run, file: Path) -> bool:
    return any(run.dataset.file(sample) == file.resolve() for sample in run.dataset.split("certify"))


def test_what_was_not_checked_stands_in_the_certificate_and_cannot_be_taken_out(
    owner: Owned, here: Cli, tmp_path: Path
) -> None:
    photographs(tmp_path / "new", 20, first=500)
    done = here(*given(owner, tmp_path / "run", unseen=tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    assert NOT_VERIFIED in done.stderr
    run = load_run(tmp_path / "run")
    assert run.adoption is not None
    assert (run.adoption.verified, run.adoption.unseen) == ("", "--unseen new")
    splits = {name: {Path(sample.path).parts[0] for sample in run.dataset.split(name)} for name in SPLITS}
    assert splits["calibration"] == {p.parts[0] for p in [owner.photos.relative_to(run.dataset.root)]}
    assert splits["certify"] == splits["search"] == {Path(tmp_path / "new").relative_to(run.dataset.root).parts[0]}
    (made,) = edgetl.export(run, targets="x86-generic", out=tmp_path / "out", precision="fp32", bench=False)
    assert NOT_VERIFIED in made.certificate.notes
    assert MAYBE_SEEN not in made.certificate.notes
    certificate = made.bundle.path / "certificate.json"
    from edgetl.base.storage import sealed, write_json

    record = json.loads(certificate.read_text())
    write_json(certificate, sealed({**record, "notes": [n for n in record["notes"] if n != NOT_VERIFIED]}))
    assert "notes" in str(check(made.bundle.path))


def test_the_same_command_again_changes_nothing_and_another_is_refused(owner: Owned, here: Cli, tmp_path: Path) -> None:
    words = given(owner, tmp_path / "run")
    killed = tmp_path / ".run.abc.partial"
    killed.mkdir()
    assert here(*words).returncode == 0
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "run").iterdir()}
    assert here(*words).returncode == 0
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "run").iterdir()} == before
    refused(here(*words, "--seed", 1), "seed differs", "--fresh")
    assert here(*words, "--seed", 1, "--fresh").returncode == 0


def test_bad_input_is_refused_in_a_line_and_leaves_nothing(owner: Owned, here: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    two = exported(nn.Sequential(owner.model, nn.Softmax(1), nn.Softmax(1)), tmp_path / "two.onnx", _example())
    pair = exported(_Pair(owner.model), tmp_path / "pair.onnx", _example(), output_names=["a", "b"])
    names = tmp_path / "names.txt"
    names.write_text("dawn\ndusk\n")
    (tmp_path / "torn.onnx").write_bytes(owner.onnx.read_bytes()[:1000])
    grey = owner.declared(tmp_path / "grey.json", channels="L", mean=[0.5], std=[0.5])
    large = owner.declared(tmp_path / "large.json", height=32, width=32)

    def words(model: Path, **options: object) -> list[object]:
        made = given(owner, out, **options)
        made[1] = model
        return made

    refused(here(*words(owner.onnx, preprocess=None)), "nothing tells how", "--preprocess", '"height": 24')
    refused(here(*words(two)), "ends in Softmax and Softmax", "probabilities for logits")
    refused(here(*words(pair)), "has the outputs a and b", "--output NAME")
    refused(here(*words(pair, output="c")), "no output 'c'", "a and b")
    refused(here(*words(tmp_path / "torn.onnx")), "no ONNX file that edgetl reads")
    refused(here(*words(tmp_path / "none.onnx")), "there is no model")
    refused(here(*words(tmp_path / "model.bin")), "no form of model that edgetl adopts", "an ONNX file")
    refused(here(*words(owner.onnx, classes=names)), "noon", "--classes")
    refused(here(*words(owner.onnx, preprocess=grey)), "no image of 1 channels")
    refused(here(*words(owner.onnx, preprocess=large)), "24x24", "32x32")
    refused(here(*words(owner.onnx, claim="accuracy")), "holds no number")
    refused(here(*words(owner.onnx, claim="acuracy=1")), "unknown metric", "accuracy")
    refused(here(*words(owner.onnx, answers=tmp_path / "none.npz")), "there are no answers")
    assert not out.exists()
    done = here(*words(pair, output="b"))
    assert done.returncode == 0, done.stderr


class _Pair(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Something else, and the logits."""
        return x.mean((2, 3)), self.model(x)


def _example() -> torch.Tensor:
    return torch.zeros(1, 3, 24, 24)


class _Rows(nn.Module):
    """Takes an image as rows of pixels: float or uint8 (n, height, width, 3)."""

    def __init__(self, model: nn.Module, inside: bool) -> None:
        super().__init__()
        self.model, self.inside = model, inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        planes = x.float().permute(0, 3, 1, 2)
        if self.inside:
            planes = (planes / 255 - 0.45) / STD[1]
        return self.model(planes)


@pytest.mark.parametrize("form", ["rows", "bytes", "open size", "raw pixels", "opset 11"])
def test_every_form_of_input_becomes_the_one_that_edgetl_feeds(form: str, owner: Owned, tmp_path: Path) -> None:
    """The outputs are those of torch for what the owner's program would have fed."""
    prep = owner.declared(tmp_path / "prep.json")
    file, model = tmp_path / "model.onnx", owner.model
    x = torch.from_numpy(np.stack([squashed(path) for path in owner.files[:6]]))
    expected = model(x)
    if form == "rows":
        exported(_Rows(model, False).eval(), file, torch.zeros(1, 24, 24, 3))
    elif form == "bytes":
        prep = owner.declared(tmp_path / "prep.json", mean=(0.45,) * 3, std=(STD[1],) * 3)
        exported(_Rows(model, True).eval(), file, torch.zeros(1, 24, 24, 3, dtype=torch.uint8))
        pixels = x * torch.tensor(STD)[:, None, None] + torch.tensor((0.485, 0.456, 0.406))[:, None, None]
        expected = model((pixels - 0.45) / STD[1])
    elif form == "open size":
        mean = nn.Sequential(network()[:5], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
        exported(mean, file, torch.zeros(2, 3, 16, 16), dynamic_axes={"input": {0: "n", 2: "h", 3: "w"}})
        expected = mean(x)
    elif form == "raw pixels":
        prep = owner.declared(tmp_path / "prep.json", mean=(0, 0, 0), std=(1 / 255,) * 3)
        exported(model, file, _example())
        expected = model(
            255 * (x * torch.tensor(STD)[:, None, None] + torch.tensor((0.485, 0.456, 0.406))[:, None, None])
        )
    else:
        exported(model, file, _example(), opset=11)
    run = edgetl.adopt(file, owner.photos, tmp_path / "run", preprocess=prep)
    assert run.network is not None
    found = _run(run.network, run, owner.files[:6])
    assert np.abs(found - expected.detach().numpy()).max() < 1e-4 * max(1.0, float(expected.detach().abs().max()))


def _run(network: Path, run: edgetl.Run, files: tuple[Path, ...]) -> np.ndarray:
    import onnxruntime

    from edgetl.inputs import input_of

    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    assert (value.type, value.shape[1:]) == ("tensor(uint8)", [24, 24, 3])
    return np.asarray(session.run(["logits"], input_of(run).batch(files))[0])
