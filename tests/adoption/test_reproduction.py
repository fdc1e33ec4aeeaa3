"""Is the model adopted as it was used? Planted mistakes are named, honest models pass, and nothing is left behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import softmax
from torchvision.transforms.functional import center_crop

from edgetl.core.run import load_run
from edgetl.inputs import Preprocess
from tests.adoption.foreign import CLASSES, MEAN, STD, Owned
from tests.adoption.test_adopt_onnx import given

Cli = Callable[..., subprocess.CompletedProcess[str]]

#: What was declared instead of the truth, and how it is named.
PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "BGR": ({"channels": "BGR", "mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229)}, "[channel-order]"),
    "wrong std": ({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}, "normalising by ImageNet's"),
    "no normalisation": ({"mean": (0, 0, 0), "std": (1, 1, 1)}, "normalising by ImageNet's"),
    "crop for squash": ({"mode": "shorter", "resize": 24}, "squeezing the whole image"),
    "letterbox for squash": ({"mode": "letterbox"}, "resizing as squash instead of letterbox"),
    "nearest": ({"interpolation": "nearest"}, "resizing by bilinear instead of nearest"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_wrong_declaration_is_named_by_the_owners_answers(
    fault: str, owner: Owned, here: Cli, tmp_path: Path
) -> None:
    changes, name = PLANTED[fault]
    prep = owner.declared(tmp_path / "prep.json", **changes)
    done = here(*given(owner, tmp_path / "run", preprocess=prep, answers=owner.answers(tmp_path / "a.npz")))
    assert done.returncode == 3
    assert name in done.stderr
    assert not (tmp_path / "run").exists()


def _shuffled(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return logits[:, [1, 2, 0]]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_shuffled, "in another order (0 is the model's 1"),
        (lambda x: softmax(softmax(x, 1), 1), "after two Softmax"),
        (lambda x: np.random.default_rng(0).normal(size=x.shape), "is it this model's file?"),
    ],
    ids=["permuted outputs", "doubled Softmax", "another model"],
)
def test_answers_that_are_not_the_models(
    change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], name: str, owner: Owned, here: Cli, tmp_path: Path
) -> None:
    answers = owner.answers(tmp_path / "a.npz", change(owner.logits))
    done = here(*given(owner, tmp_path / "run", answers=answers))
    assert done.returncode == 3
    assert name in done.stderr


@pytest.mark.parametrize("form", ["logits", "probabilities", "noisy"])
def test_honest_answers_pass(form: str, owner: Owned, here: Cli, tmp_path: Path) -> None:
    """Logits, what the file itself gives, and logits of another machine's arithmetic or decoder."""
    noise = np.random.default_rng(0).normal(0, 0.005 * owner.logits.std(), owner.logits.shape)
    values = {"logits": owner.logits, "probabilities": softmax(owner.logits, 1), "noisy": owner.logits + noise}[form]
    done = here(*given(owner, tmp_path / "run", answers=owner.answers(tmp_path / "a.npz", values)))
    assert done.returncode == 0, done.stderr


def test_a_crop_that_starts_a_pixel_further_is_no_mistake(owner: Owned, here: Cli, tmp_path: Path) -> None:
    """Of 27 pixels too many torchvision leaves 14 out on the left, edgetl 13."""
    prep = owner.declared(tmp_path / "prep.json", mode="shorter", resize=34)
    right = Preprocess(24, 24, 34, "bilinear", MEAN, STD)
    pixels = [center_crop(right.resized(path), [24, 24]) for path in owner.files]
    planes = np.stack([(np.asarray(p) / 255 - np.array(MEAN)) / np.array(STD) for p in pixels]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        logits = owner.model(torch.from_numpy(planes.astype(np.float32))).numpy()
    done = here(
        *given(owner, tmp_path / "run", preprocess=prep, answers=owner.answers(tmp_path / "a.npz", logits)), "--json"
    )
    assert done.returncode == 0, done.stderr
    evidence = json.loads(done.stdout)["adoption"]["evidence"]["answers"]
    assert evidence["distance"] < 1e-4
    assert "rounds halves of a pixel to even" in evidence["crop"]


def test_too_few_answers_prove_nothing(owner: Owned, here: Cli, tmp_path: Path) -> None:
    few = tmp_path / "few.npz"
    with np.load(owner.answers(tmp_path / "a.npz")) as all_of_them:
        np.savez(few, logits=all_of_them["logits"][:20], sha256=all_of_them["sha256"][:20])
    done = here(*given(owner, tmp_path / "run", answers=few))
    assert (done.returncode, "answers 20 of the 180 samples, and 24 are the least" in done.stderr) == (2, True)


def test_two_answers_for_one_file_are_no_answer(owner: Owned, here: Cli, tmp_path: Path) -> None:
    twice, there = tmp_path / "twice.npz", dict(np.load(owner.answers(tmp_path / "a.npz")))
    hashes = np.concatenate([there["sha256"], there["sha256"][:1]])
    np.savez(twice, logits=np.concatenate([there["logits"], there["logits"][:1] + 1]), sha256=hashes)
    done = here(*given(owner, tmp_path / "run", answers=twice))
    assert (done.returncode, "two different answers for one file" in done.stderr) == (2, True)


def test_a_claim_that_holds_and_one_that_does_not(owner: Owned, here: Cli, tmp_path: Path) -> None:
    right = float(np.mean(owner.logits.argmax(1) == [CLASSES.index(f.parent.name) for f in owner.files]))
    done = here(*given(owner, tmp_path / "run", claim=f"accuracy={100 * right:g}%"), "--json")
    assert done.returncode == 0, done.stderr
    adoption = json.loads(done.stdout)["adoption"]
    assert adoption["verified"] == "claim"
    assert adoption["evidence"]["claim"]["low"] <= right <= adoption["evidence"]["claim"]["high"]
    assert load_run(tmp_path / "run").adoption is not None
    wrong = here(*given(owner, tmp_path / "other", claim="accuracy=0.5"))
    assert wrong.returncode == 3
    assert "claimed accuracy of 50" in wrong.stderr


def test_a_claim_names_what_would_restore_it(owner: Owned, here: Cli, tmp_path: Path) -> None:
    changes, name = PLANTED["BGR"]
    prep = owner.declared(tmp_path / "prep.json", **changes)
    done = here(*given(owner, tmp_path / "run", preprocess=prep, claim="accuracy=1"))
    assert done.returncode == 3
    assert name in done.stderr


def test_names_in_another_order_are_refused_whoever_claims_nothing(owner: Owned, here: Cli, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join([CLASSES[1], CLASSES[2], CLASSES[0]]) + "\n")
    done = here(*given(owner, tmp_path / "run", classes=names))
    assert done.returncode == 3
    assert "[label-order]" in done.stderr
    assert f"output '{CLASSES[1]}' is right as '{CLASSES[0]}'" in done.stderr
