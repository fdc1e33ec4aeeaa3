"""TensorRT's sessions on the fake GPU of ``tests/gpu``, which enforces what a real one does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgetl.base.errors import BackendError
from edgetl.compress.export import export_onnx
from edgetl.core.bundle import Artifact
from edgetl.runtime import build_engine
from edgetl.runtime.engine import Engine
from edgetl.runtime.plan import Plan
from edgetl.runtime.predict import infer
from edgetl.runtime.queries import opened
from edgetl.runtime.sessions import open_session, open_sessions
from edgetl.runtime.trt import TensorRtSession
from tests.backends.contract import BackendContract
from tests.backends.networks import pair_network, parsed
from tests.compress.images import SIZE, pictures
from tests.compress.models import PREPROCESS, logits_of, small_model
from tests.gpu.fake import FakeGpu

pytestmark = pytest.mark.usefixtures("gpu")


class TestTensorRtOnAGpu(BackendContract):
    name = "tensorrt"
    target_name = "jetson-orin-nano"
    recipe = "tensorrt-int8"
    batch = 1
    tells = False
    files = frozenset({"model.onnx", "build_engine.py", "build_engine.sh", "parse.json"})


@pytest.fixture
def artifact(small_onnx: Path) -> Artifact:
    return Artifact("tensorrt", small_onnx, "fp32")


def close_to(found: Any, expected: Any) -> bool:
    return bool(np.abs(found - expected).max() < 1e-3 * np.ptp(expected))


def test_an_inference_waits_once_and_copies_from_page_locked_memory(gpu: FakeGpu, artifact: Artifact) -> None:
    session = open_session(artifact)
    session.run({"image": pictures(1)})
    names = ("cuStreamSynchronize", "launches", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuCtxPushCurrent_v2")
    names = (*names, "cuMemAlloc_v2", "cuMemHostAlloc")
    before = {name: gpu.count(name) for name in names}
    for image in pictures(5):
        session.run({"image": image[None]})
    made = {name: gpu.count(name) - count for name, count in before.items()}
    assert made == dict(zip(names, (5, 5, 5, 5, 5, 0, 0), strict=True))
    # Copies from other memory, and streams that wait for the default one, are what the fixture refuses.
    assert gpu.count("blocking streams") == 0
    session.close()


def test_answers_are_the_callers_own(artifact: Artifact) -> None:
    session = open_session(artifact)
    first = session.run({"image": pictures(2)[:1]})["logits"]
    kept = first.copy()
    session.run({"image": pictures(2)[1:]})
    session.close()
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("call", "nth", "told"),
    [
        ("cuDevicePrimaryCtxRetain", 1, "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuStreamCreate", 1, "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuStreamCreate", 2, "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuMemAlloc_v2", 2, "no memory for another session"),
        ("cuMemAlloc_v2", 3, "no memory for another session"),
    ],
)
def test_what_was_opened_half_way_is_given_back(
    call: str, nth: int, told: str, gpu: FakeGpu, artifact: Artifact
) -> None:
    gpu.fail(call, nth)
    with pytest.raises(BackendError, match=told) as caught:
        open_sessions(artifact, 2)
    assert "\n" not in str(caught.value)
    assert gpu.held() == dict.fromkeys(gpu.held(), 0)


@pytest.mark.parametrize(("call", "nth"), [("cuMemAlloc_v2", 1), ("cuMemAlloc_v2", 2), ("cuMemHostAlloc", 2)])
def test_a_run_without_memory_leaves_a_session_that_runs(
    call: str, nth: int, gpu: FakeGpu, artifact: Artifact, small_onnx: Path
) -> None:
    session, images = open_session(artifact), pictures(1)
    gpu.fail(call, nth)
    with pytest.raises(BackendError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        session.run({"image": images})
    assert close_to(session.run({"image": images})["logits"], logits_of(small_onnx, images))
    session.close()


def test_several_sessions_have_one_engine(gpu: FakeGpu, artifact: Artifact) -> None:
    one, *others = open_sessions(artifact, 3)
    assert gpu.count("allocated") == 1 + 3, "weights once, scratch memory for each"
    one.close()
    images = pictures(1)
    answers = [session.run({"image": images})["logits"] for session in others]
    np.testing.assert_array_equal(*answers)
    for session in others:
        session.close()


def test_one_session_asked_by_several_threads(artifact: Artifact, small_onnx: Path) -> None:
    session, images = open_session(artifact), pictures(8)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda image: session.run({"image": image[None]})["logits"], images))
    assert close_to(np.concatenate(answers), logits_of(small_onnx, images))
    session.close()


def test_streams_are_asked_from_threads_of_their_own(gpu: FakeGpu, artifact: Artifact) -> None:
    plan, samples = Plan(scenario="multi-stream", streams=3), [{"image": image[None]} for image in pictures(3)]
    with opened(artifact, samples, plan) as ready:
        before = gpu.count("launches")
        ready.query(0)
        assert gpu.count("launches") - before == ready.schedule.samples == 3


def test_offline_an_engine_is_built_for_the_batch(
    gpu: FakeGpu, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetl.runtime.queries.TRIAL_S", 0.01)
    monkeypatch.setattr("edgetl.runtime.queries.OFFLINE_QUERY_S", 0.001)
    plan, samples = Plan(scenario="offline", streams=2), [{"image": image[None]} for image in pictures(3)]
    with opened(artifact, samples, plan) as ready:
        assert {each.batch for each in ready.tried} == {1, 8}
        before = gpu.count("launches")
        ready.query(0)
        assert (gpu.count("launches") - before) * ready.schedule.batch == ready.schedule.samples
    (session,) = open_sessions(artifact, 1, batch=8)
    assert session.run({"image": pictures(8)})["logits"].shape == (8, 7)
    session.close()


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    model = export_onnx(small_model(), PREPROCESS, tmp_path / "four.onnx", batch=4)
    session, images = open_session(Artifact("tensorrt", model, "fp32")), pictures(4)
    expected = logits_of(model, images)
    for n in (1, 3, 4):
        assert close_to(infer(session, {"image": images[:n]})["logits"], expected[:n])
    with pytest.raises(BackendError, match="takes uint8 4x32x32x3, not uint8 1x32x32x3"):
        session.run({"image": images[:1]})
    session.close()
    (same,) = open_sessions(Artifact("tensorrt", model, "fp32"), 1, batch=8)
    assert same.inputs == session.inputs, "the model leaves no choice, and no other engine is built"
    same.close()


def built(model: Path, folder: Path, **options: Any) -> Path:
    trt = build_engine.load_tensorrt()
    engine = folder / "model.engine"
    data = build_engine.build(trt, model.read_bytes(), options.get("batch", 1), 0, folder / "timings")
    build_engine.keep(engine, data)
    return engine


def test_an_engine_for_several_batches_takes_each_and_says_which(small_onnx: Path, tmp_path: Path) -> None:
    engine = Engine(build_engine.load_tensorrt(), built(small_onnx, tmp_path, batch=4))
    session, images = TensorRtSession(engine), pictures(5)
    engine.close()
    assert session.inputs[0].shape == (None, SIZE, SIZE, 3)
    expected = logits_of(small_onnx, images)
    for n in (2, 4, 1, 3):
        assert close_to(session.run({"image": images[:n]})["logits"], expected[:n])
    with pytest.raises(BackendError, match=r"takes no 'image' of 5x32x32x3: feed 1x32x32x3 to 4x32x32x3"):
        session.run({"image": images})
    assert close_to(session.run({"image": images[:2]})["logits"], expected[:2])
    session.close()


def test_tensors_that_no_array_holds_are_refused(gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = parsed("g (float[1, 4] x) => (bfloat16[1, 4] y) { y = Cast<to=16>(x) }")
    unknown = parsed("g (float[1, 4] x) => (int64[n, k] y) { y = NonZero(x) }")
    for model, told in (
        (half, "'y' of .* which numpy lacks"),
        (unknown, "the size of 'y' depends on what is computed"),
    ):
        onnx.save(model, tmp_path / "odd.onnx")
        with (
            pytest.raises(BackendError, match=told),
            closing(open_session(Artifact("tensorrt", tmp_path / "odd.onnx", "fp32"))) as session,
        ):
            session.run({"x": np.ones((1, 4), np.float32)})
    monkeypatch.setenv("FAKE_TENSORRT_SHAPES", "left")
    engine = built(pair_network(tmp_path / "pair.onnx"), tmp_path)
    with pytest.raises(BackendError, match=r"'left' of .* is a shape, not an array"):
        Engine(build_engine.load_tensorrt(), engine)
    assert gpu.count("streams") == 0


def test_what_tensorrt_refuses_is_an_error(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them raises by itself: they return False."""
    session, images = open_session(artifact), pictures(1)
    context = type(session._context)  # type: ignore[attr-defined]
    for call, told in {
        "set_input_shape": "the engine takes no 'image'",
        "set_tensor_address": "TensorRT takes no memory for 'image'",
        "execute_async_v3": "TensorRT could not execute the engine",
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(context, call, lambda *arguments: False)
            with pytest.raises(BackendError, match=told):
                session.run({"image": images})
    assert session.run({"image": images})["logits"].shape == (1, 7)
    session.close()
