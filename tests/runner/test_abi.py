"""The C functions as a program calls them: the caller's buffers, strides, arrays by name, structures, errors."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgetl.core.bundle import Bundle
from edgetl.runtime import open_bundle
from tests.runner import ugly
from tests.runner.built import Runner
from tests.runner.test_answers import LABELS, colour_bundle
from tests.runtime.tiny import HEIGHT, WIDTH, tensor_bundle

OK, USAGE, INPUT = 0, 2, 5


class Options(Structure):
    _fields_ = (
        ("size", c_size_t),
        ("flags", c_uint32),
        ("threads", c_int32),
        ("role", c_char_p),
        ("runtime_library", c_char_p),
        ("public_key", c_char_p),
        ("max_pixels", c_uint64),
        ("max_bytes", c_uint64),
    )


class Answer(Structure):
    _fields_ = (
        ("task", c_int32),
        ("index", c_int32),
        ("flags", c_uint32),
        ("number", c_double),
        ("label", c_char_p),
    )


class Answers(Structure):
    _fields_ = (
        ("size", c_size_t),
        ("top", c_uint32),
        ("items", POINTER(Answer)),
        ("capacity", c_size_t),
        ("count", c_size_t),
    )


class Tensor(Structure):
    _fields_ = (("name", c_char_p), ("data", c_void_p), ("bytes", c_size_t))


class Timing(Structure):
    _fields_ = (("size", c_size_t), ("decode_ms", c_double), ("resize_ms", c_double), ("run_ms", c_double))


class Model:
    """A handle."""

    def __init__(self, runner: Runner, library: Path, bundle: Path, **options: Any) -> None:
        self.etl = ctypes.CDLL(str(runner.library))
        for name in ("etl_error", "etl_label", "etl_task", "etl_output"):
            getattr(self.etl, name).restype = c_char_p
        given = Options(size=ctypes.sizeof(Options), threads=1, runtime_library=str(library).encode(), **options)
        self.handle = c_void_p()
        self.status = self.etl.etl_open(str(bundle).encode(), byref(given), byref(self.handle))

    def answers(self, capacity: int = 9, top: int = 0) -> Answers:
        return Answers(ctypes.sizeof(Answers), top, (Answer * capacity)(), capacity, 0)

    def error(self) -> str:
        return str(self.etl.etl_error(self.handle).decode())

    def rgb(self, pixels: npt.NDArray[np.uint8], answers: Answers) -> int:
        height, width = pixels.shape[:2]
        data = pixels.ctypes.data_as(c_void_p)
        return int(self.etl.etl_run_rgb(self.handle, data, width, height, c_size_t(pixels.strides[0]), byref(answers)))

    def outputs(self, index: int, capacity: int = 99) -> npt.NDArray[np.float32]:
        count, values = c_size_t(), np.zeros(capacity, np.float32)
        data = values.ctypes.data_as(c_void_p)
        assert self.etl.etl_outputs(self.handle, index, data, c_size_t(capacity), byref(count)) == OK
        return values[: count.value]


@contextmanager
def opened(runner: Runner, library: Path, bundle: Path, **options: Any) -> Iterator[Model]:
    model = Model(runner, library, bundle, **options)
    assert model.status == OK, model.error()
    yield model
    model.etl.etl_close(model.handle)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS)


def test_pixels_with_a_stride(ort: Runner, ort_library: Path, bundle: Bundle) -> None:
    wide = ugly.noise(90, 50)
    part = wide[3:41, 5:61]
    with opened(ort, ort_library, bundle.path) as model, open_bundle(bundle, threads=1) as python:
        answers = model.answers()
        assert model.rgb(part, answers) == OK
        wanted = python.outputs(Image.fromarray(np.ascontiguousarray(part)))["logits"][0]
        assert np.array_equal(model.outputs(0), wanted)
        labels = [answers.items[i].label.decode() for i in range(answers.count)]
        assert labels == [LABELS[i] for i in np.argsort(-wanted, kind="stable")]
        assert model.etl.etl_run_rgb(model.handle, None, 4, 4, c_size_t(12), byref(answers)) == USAGE
        assert model.etl.etl_run_rgb(model.handle, b"0" * 99, 4, 4, c_size_t(11), byref(answers)) == USAGE


def test_arrays_by_name(ort: Runner, ort_library: Path, tmp_path: Path) -> None:
    held = tensor_bundle(tmp_path / "bundle")
    left, right = np.arange(4, dtype=np.float32), np.array([1, 2, 3], np.float32)
    with opened(ort, ort_library, held.path) as model:
        inputs = (Tensor * 2)(
            Tensor(b"right", right.ctypes.data, right.nbytes), Tensor(b"left", left.ctypes.data, left.nbytes)
        )
        answers = model.answers()
        assert model.etl.etl_run_tensor(model.handle, inputs, c_size_t(2), byref(answers)) == OK
        assert (answers.count, answers.items[0].index, answers.items[0].number) == (1, -1, 6 + 2 * 6)
        assert model.etl.etl_run_tensor(model.handle, inputs, c_size_t(1), byref(answers)) == USAGE
        inputs[0].bytes = 8
        assert model.etl.etl_run_tensor(model.handle, inputs, c_size_t(2), byref(answers)) == USAGE
        assert "'right' has 12 bytes of float32, not 8" in model.error()
        inputs[0] = inputs[1]
        assert model.etl.etl_run_tensor(model.handle, inputs, c_size_t(2), byref(answers)) == USAGE
        assert model.etl.etl_self_test(model.handle, None) == OK, model.error()
        assert model.etl.etl_run_file(model.handle, b"photo.jpg", byref(answers)) in (USAGE, INPUT)


def test_buffers_too_small(ort: Runner, ort_library: Path, bundle: Bundle) -> None:
    with opened(ort, ort_library, bundle.path) as model:
        answers = model.answers(2)
        assert model.rgb(ugly.noise(30, 30), answers) == USAGE
        assert answers.count == 4
        assert "4 answers" in model.error()
        answers = model.answers(2, top=2)
        assert model.rgb(ugly.noise(30, 30), answers) == OK
        count = c_size_t()
        assert model.etl.etl_outputs(model.handle, 0, None, c_size_t(0), byref(count)) == OK
        assert count.value == 4
        assert model.etl.etl_outputs(model.handle, 0, (c_double * 4)(), c_size_t(3), None) == USAGE
        assert model.etl.etl_outputs(model.handle, 1, None, c_size_t(0), byref(count)) == USAGE
        small = ctypes.create_string_buffer(10)
        content = ugly.saved(ugly.noise(30, 30), "PNG")
        arguments = (content, c_size_t(len(content)), small, c_size_t(10))
        assert model.etl.etl_preprocess(model.handle, *arguments) == USAGE
        assert f"{HEIGHT * WIDTH * 3} bytes" in model.error()


def test_structures_of_another_version(ort: Runner, ort_library: Path, bundle: Bundle) -> None:
    with opened(ort, ort_library, bundle.path) as model:
        answers = model.answers()
        answers.size = 0
        assert model.rgb(ugly.noise(30, 30), answers) == USAGE
        timing = Timing(size=Timing.resize_ms.offset, resize_ms=-1.0)
        model.etl.etl_last_timing(model.handle, byref(timing))
        assert timing.resize_ms == -1.0
        assert timing.size == Timing.resize_ms.offset
        timing.size = ctypes.sizeof(Timing)
        model.etl.etl_last_timing(model.handle, byref(timing))
        assert timing.run_ms > 0


def test_limits_before_decoding(ort: Runner, ort_library: Path, bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(ugly.saved(ugly.noise(40, 30), "PNG"))
    with opened(ort, ort_library, bundle.path, max_pixels=1199) as model:
        assert model.etl.etl_run_file(model.handle, str(path).encode(), None) == INPUT
        assert "40x30" in model.error()
    with opened(ort, ort_library, bundle.path, max_pixels=1200, max_bytes=100) as model:
        assert model.etl.etl_run_file(model.handle, str(path).encode(), None) == INPUT
        assert "100 are the most" in model.error()
    with opened(ort, ort_library, bundle.path, max_pixels=1200) as model:
        assert model.etl.etl_run_file(model.handle, str(path).encode(), None) == OK
        assert model.etl.etl_run_file(model.handle, str(tmp_path).encode(), None) == INPUT


def test_errors_of_opening(runner: Runner, ort_library: Path, bundle: Bundle, tmp_path: Path) -> None:
    model = Model(runner, tmp_path / "libnothing.so", bundle.path)
    assert (model.status, model.handle.value) == (6, None)
    assert "libnothing.so" in model.error()
    assert Model(runner, ort_library, tmp_path / "nowhere").status == 3
    assert model.etl.etl_open(None, None, byref(model.handle)) == USAGE
    assert model.etl.etl_run_file(None, b"photo.jpg", None) == USAGE
    assert model.etl.etl_label(None, 0, 0) is None
    model.etl.etl_close(None)


def test_names_and_no_runtime(ort: Runner, ort_library: Path, bundle: Bundle) -> None:
    with opened(ort, ort_library, bundle.path) as model:
        assert model.etl.etl_version() == 1
        assert [model.etl.etl_label(model.handle, 0, i) for i in (-1, 0, 3, 4)] == [None, b"ash", b"fir", None]
        assert [model.etl.etl_task(model.handle, i) for i in (0, 1)] == [b"", None]
        assert [model.etl.etl_output(model.handle, i) for i in (0, 1)] == [b"logits", None]
    with opened(ort, ort_library, bundle.path, flags=1) as model:
        assert model.rgb(ugly.noise(30, 30), model.answers()) == USAGE
        assert "without a runtime" in model.error()


def test_a_handle_for_each_thread(ort: Runner, ort_library: Path, bundle: Bundle) -> None:
    wanted: dict[int, list[float]] = {}
    found: dict[int, list[float]] = {}

    def ask(number: int, into: dict[int, list[float]]) -> None:
        with opened(ort, ort_library, bundle.path) as model:
            for _ in range(20):
                assert model.rgb(ugly.noise(50 + number, 40), model.answers()) == OK
            into[number] = model.outputs(0).tolist()

    for number in range(4):
        ask(number, wanted)
    threads = [threading.Thread(target=ask, args=(number, found)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted
