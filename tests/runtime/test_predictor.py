"""A bundle's answers, as a program gets them: every kind of sample, every kind of answer."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

import edgetl
from edgetl.base.errors import BackendError, BundleError, DataError
from edgetl.core.bundle import Artifact, Bundle
from edgetl.runtime import LabelProbability, Prediction, Predictor, open_bundle, selftest

MakeBundle = Callable[..., Bundle]
NAMES = ("ash", "birch", "cedar", "fir")


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(np.float64) - logits.max())
    return shares / shares.sum()


def test_an_image_however_a_program_holds_it(float_bundle: MakeBundle, image_files: list[Path]) -> None:
    with open_bundle(float_bundle().path) as model:
        picture = Image.open(image_files[0]).convert("RGB")
        answers = model.predict([image_files[0], str(image_files[0]), picture, np.asarray(picture)], top=3)
        alone = model.predict(image_files[0], top=3)
    assert answers == [alone] * 4
    shares = softmax(tiny.expected(tiny.PREPROCESS.apply(image_files[0])[None])[0])
    order = np.argsort(-shares)
    assert [entry.label for entry in alone.top] == [NAMES[i] for i in order[:3]]
    assert [entry.probability for entry in alone.top] == pytest.approx(shares[order[:3]], rel=1e-3)
    assert (alone.label, alone.labels) == (NAMES[order[0]], alone.top[:1])
    assert alone.value is None
    assert alone.to_json()["labels"] == [{"label": alone.label, "probability": alone.probability}]


def test_several_threads_may_ask(float_bundle: MakeBundle, image_files: list[Path]) -> None:
    with open_bundle(float_bundle(), threads=1) as model:
        alone = model.predict(image_files)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(model.predict, image_files * 5)) == alone * 5


def test_several_in_one_inference_answer_as_each_alone(float_bundle: MakeBundle, image_files: list[Path]) -> None:
    for fixed in (None, 4, 1):
        with open_bundle(float_bundle(fixed, seed=fixed or 0)) as model:
            alone = [model.predict(file) for file in image_files]
            for batch in (1, 4, 100):
                together = model.predict(image_files, batch=batch)
                assert [answer.label for answer in together] == [answer.label for answer in alone]
                found = [answer.probability for answer in together]
                assert found == pytest.approx([answer.probability for answer in alone], rel=1e-4)
            assert model.predict([], batch=4) == []


def test_an_event_loop_goes_on_while_it_waits(float_bundle: MakeBundle, image_files: list[Path]) -> None:
    bundle = edgetl.load_bundle(float_bundle().path)

    async def asked() -> tuple[list[Prediction], list[Prediction]]:
        each = await asyncio.gather(*(bundle.predict_async(file.read_bytes()) for file in image_files))
        return list(each), await bundle.predict_async(image_files, batch=3)

    each, together = asyncio.run(asked())
    assert each == [bundle.predict(file) for file in image_files]
    assert [answer.label for answer in together] == [answer.label for answer in each]
    bundle.predictor.close()


def test_it_answers_though_its_folder_is_gone(float_bundle: MakeBundle, image_files: list[Path]) -> None:
    bundle = float_bundle()
    with open_bundle(bundle) as model:
        before = model.predict(image_files[0])
        shutil.rmtree(bundle.path)
        assert model.predict(image_files[0]) == before


def test_a_text_is_a_text_and_a_path_is_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers (edgetl[text]) cuts texts into tokens")
    bundle = tiny.text_bundle(tmp_path / "bundle")
    (tmp_path / "review.txt").write_text("bad film\n")
    with open_bundle(bundle) as model:
        good, bad, long = model.predict(["a good film", tmp_path / "review.txt", "very " * 20 + "good"])
    assert (good.label, bad.label) == ("good", "bad")
    scores = tiny.text_scores(np.array([6, 2, 4]))
    assert good.probability == pytest.approx(softmax(scores)[1], rel=1e-4)
    assert long.label == "bad", "the twentieth word lies behind the eight that the network is given"
    outcome = selftest(bundle)
    assert outcome.passed, "golden texts of different lengths are padded to one"
    assert outcome.max_difference < 1e-5


def test_arrays_by_name_give_a_value(tmp_path: Path) -> None:
    bundle = tiny.tensor_bundle(tmp_path / "bundle")
    sample = {"left": np.arange(4, dtype=np.float32), "right": np.ones(3, np.float32)}
    np.savez(tmp_path / "sample.npz", **sample)  # type: ignore[arg-type]
    with open_bundle(bundle) as model:
        answers = model.predict([sample, tmp_path / "sample.npz"])
        with pytest.raises(DataError):
            model.predict({"left": sample["left"]})
    assert [answer.value for answer in answers] == [12.0, 12.0]
    assert answers[0].labels == answers[0].top == ()
    assert answers[0].label is None
    assert answers[0].to_json() == {"value": 12.0}
    assert selftest(bundle).passed


def test_several_labels_are_those_above_the_threshold(tmp_path: Path) -> None:
    sample = {"left": np.full(4, 0.5, np.float32), "right": np.zeros(3, np.float32)}
    with open_bundle(tiny.tensor_bundle(tmp_path / "bundle", "multi-label")) as model:
        answer = model.predict(sample, top=1)
    up = LabelProbability("up", pytest.approx(1 / (1 + math.exp(-2))))
    assert answer.labels == (up, LabelProbability("still", 0.5))
    assert answer.top == (up,)


def test_a_closed_one_says_so(float_bundle: MakeBundle, image_files: list[Path]) -> None:
    model = Predictor(float_bundle())
    model.close()
    model.close()
    with pytest.raises(BundleError, match="was closed: open it again"):
        model.predict(image_files[0])


def test_what_cannot_be_asked_is_one_line(float_bundle: MakeBundle, image_files: list[Path], tmp_path: Path) -> None:
    with open_bundle(float_bundle()) as model:
        for wrong in (tmp_path / "gone.jpg", np.zeros((3, 3)), 7):
            with pytest.raises(DataError) as caught:
                model.predict(wrong)  # type: ignore[call-overload]
            assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match=r"gone\.jpg"):
            model.predict([image_files[0], tmp_path / "gone.jpg"])
    jetson = tmp_path / "jetson"
    (jetson / "model").mkdir(parents=True)
    (jetson / "model" / "model.onnx").write_bytes(tiny.model().SerializeToString())
    tiny.seal(jetson, Artifact("tensorrt", jetson / "model" / "model.onnx", "fp32"))
    with pytest.raises(BackendError, match="GPU"):
        open_bundle(jetson)
    with open_bundle(jetson, simulated=True) as model:
        assert model.predict(image_files[0]).label in NAMES
