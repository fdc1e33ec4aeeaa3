"""What every backend must do; its test class inherits this and says which target and recipe it is tried with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgetl.backends import BACKENDS, Backend
from edgetl.base.errors import BackendError
from edgetl.base.storage import sha256_file
from edgetl.compress.export import export_onnx
from edgetl.core.bundle import Artifact
from edgetl.core.targets import Target, find_target, load_targets
from edgetl.core.tensors import TensorSpec
from edgetl.runtime.machine import machine, saturates
from edgetl.runtime.measure import cold_start
from edgetl.runtime.sessions import Session, open_sessions, prepare
from tests.backends.networks import pair_network, pair_outputs, text_network, text_outputs
from tests.compress.images import SIZE, pictures
from tests.compress.models import CLASSES, PREPROCESS, logits_of, small_model


def contents(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in folder.rglob("*") if file.is_file()}


class BackendContract:
    """Inherit, name the class ``Test…`` and set these.

    Attributes:
        name: key into BACKENDS.
        target_name: a target of this backend that this machine can execute, or simulate.
        recipe: its int8 recipe.
        simulated: whether this machine can only simulate it.
        batch: of an artifact that was exported without one: None where it stays open.
        files: what compile writes.
        takes_texts: whether it compiles networks of token ids and open lengths.
        tells: whether the runtime tells what precision it executed.
    """

    name: ClassVar[str]
    target_name: ClassVar[str]
    recipe: ClassVar[str]
    simulated: ClassVar[bool] = False
    batch: ClassVar[int | None] = None
    files: ClassVar[frozenset[str]]
    takes_texts: ClassVar[bool] = True
    tells: ClassVar[bool] = True

    @pytest.fixture
    def backend(self) -> Backend:
        found = BACKENDS[self.name]
        if not found.probe().available:
            pytest.skip(f"{self.name}: {found.probe().reason}")
        return found

    @pytest.fixture
    def target(self) -> Target:
        return find_target(self.target_name)

    @pytest.fixture
    def compiled(
        self, backend: Backend, target: Target, small_onnx: Path, small_int8: Callable[[str], Path], tmp_path: Path
    ) -> Callable[[str], Artifact]:
        def compile_as(precision: str) -> Artifact:
            model = small_int8(self.recipe) if precision == "int8" else small_onnx
            return backend.compile(model, target, tmp_path / precision)

        return compile_as

    @pytest.fixture
    def opened(self, backend: Backend, compiled: Callable[[str], Artifact]) -> Iterator[Callable[[str], Session]]:
        sessions: list[Session] = []

        def open_as(precision: str) -> Session:
            sessions.append(backend.open(compiled(precision), simulated=self.simulated))
            return sessions[-1]

        yield open_as
        for session in sessions:
            session.close()

    def logits(self, session: Session, images: Any) -> Any:
        return np.concatenate([session.run({"image": image[None]})["logits"] for image in images])

    def test_probe_tells_version_or_remedy(self) -> None:
        probe = BACKENDS[self.name].probe()
        if probe.available:
            assert probe.version
            assert probe.devices or probe.reason
        else:
            assert probe.reason
            assert probe.remedy
        assert set(probe.to_json()) == {"available", "version", "devices", "reason", "remedy"}

    def test_refuses_what_is_not_its_own(self, target: Target) -> None:
        backend = BACKENDS[self.name]
        assert backend.refuses(target, "int8") is None
        foreign = next(t for t in load_targets().values() if t.backend != self.name)
        assert foreign.backend in (backend.refuses(foreign, "int8") or "")
        assert "bf16" in (backend.refuses(target, "bf16") or "")
        narrow = replace(target, precisions=("fp32",))
        assert "does not run int8" in (backend.refuses(narrow, "int8") or "")

    def test_compile_refuses_a_precision_that_the_target_lacks(
        self, backend: Backend, target: Target, small_onnx: Path, tmp_path: Path
    ) -> None:
        narrow = replace(target, precisions=("int8",))
        with pytest.raises(BackendError, match="does not run fp32, only int8: use int8"):
            backend.compile(small_onnx, narrow, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_compile_writes_whole_files_and_the_same_ones_again(
        self, compiled: Callable[[str], Artifact], precision: str
    ) -> None:
        first = compiled(precision)
        before = contents(first.path.parent)
        assert compiled(precision) == first
        assert contents(first.path.parent) == before
        assert set(before) == self.files
        assert (first.backend, first.precision) == (self.name, precision)
        assert all(file.is_file() for file in first.files)

    @pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("int8", 0.15)])
    def test_logits_follow_the_float_graph(
        self, opened: Callable[[str], Session], small_onnx: Path, precision: str, tolerance: float
    ) -> None:
        if self.name == "openvino" and precision == "int8" and saturates(machine()):
            pytest.skip("this CPU has no VNNI: products of OpenVINO's int8 layers saturate in 16 bits")
        images = pictures(40, seed=2)
        expected, found = logits_of(small_onnx, images), self.logits(opened(precision), images)
        assert found.dtype == np.float32
        assert found.shape == (40, CLASSES)
        assert np.abs(found - expected).max() < tolerance * np.ptp(expected)

    def test_answers_repeat_exactly(self, opened: Callable[[str], Session]) -> None:
        session, images = opened("int8"), pictures(5)
        np.testing.assert_array_equal(self.logits(session, images), self.logits(session, images))

    def test_input_is_described_and_checked(self, opened: Callable[[str], Session]) -> None:
        session = opened("fp32")
        assert session.inputs == (TensorSpec("image", "uint8", (self.batch, SIZE, SIZE, 3)),)
        good = pictures(1)
        for bad in (good.astype(np.float32), good[0], good[:, :16], good.transpose(0, 3, 1, 2)):
            with pytest.raises(BackendError, match=r"the input 'image' takes uint8 (n|1)x32x32x3, not"):
                session.run({"image": bad})
        with pytest.raises(BackendError, match="the model's input is 'image', not picture"):
            session.run({"picture": good})

    def test_batch_is_open_or_fixed(
        self, backend: Backend, target: Target, opened: Callable[[str], Session], tmp_path: Path
    ) -> None:
        session, images = opened("fp32"), pictures(3)
        if self.batch is None:
            whole = session.run({"image": images})["logits"]
            np.testing.assert_allclose(whole, self.logits(session, images), atol=1e-4)
        else:
            with pytest.raises(BackendError, match="not uint8 3x32x32x3"):
                session.run({"image": images})
        fixed = export_onnx(small_model(), PREPROCESS, tmp_path / "fixed.onnx", batch=2)
        pair = backend.open(backend.compile(fixed, target, tmp_path / "fixed"), simulated=self.simulated)
        assert pair.inputs[0].shape == (2, SIZE, SIZE, 3)
        assert pair.run({"image": images[:2]})["logits"].shape == (2, CLASSES)
        pair.close()

    def test_several_inputs_and_outputs_go_by_name(self, backend: Backend, target: Target, tmp_path: Path) -> None:
        model = pair_network(tmp_path / "pair.onnx")
        session = backend.open(backend.compile(model, target, tmp_path / "pair"), simulated=self.simulated)
        assert set(session.inputs) == {
            TensorSpec("left", "float32", (self.batch, 4)),
            TensorSpec("right", "float32", (self.batch, 3)),
        }
        for seed in range(3):
            draw = np.random.default_rng(seed)
            left, right = (draw.normal(size=(1, size)).astype(np.float32) for size in (4, 3))
            found, expected = session.run({"right": right, "left": left}), pair_outputs(left, right)
            assert set(found) == set(expected)
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4)
        with pytest.raises(BackendError, match=r"the model's inputs are 'left', 'right'|'right', 'left', not left"):
            session.run({"left": left})
        with pytest.raises(BackendError, match="the input 'left' takes float32"):
            session.run({"left": left.astype(np.float64), "right": right})
        executed = session.executed()
        assert executed.layers == ({"fp32": 3} if self.tells else {})
        assert executed.integer_macs == (0 if self.tells else None)
        session.close()

    def test_texts_of_any_length(self, backend: Backend, target: Target, tmp_path: Path) -> None:
        model = text_network(tmp_path / "text.onnx")
        if not self.takes_texts:
            with pytest.raises(BackendError, match="input of int64"):
                backend.compile(model, target, tmp_path / "text")
            return
        session = backend.open(backend.compile(model, target, tmp_path / "text"), simulated=self.simulated)
        assert {spec.name: spec.dtype for spec in session.inputs} == {"input_ids": "int64", "attention_mask": "int64"}
        assert {spec.shape[1] for spec in session.inputs} == {None}
        for length in (3, 9, 3):
            ids = np.random.default_rng(length).integers(0, 11, (1, length))
            mask = np.arange(length)[None] < max(length - 2, 1)
            found = session.run({"input_ids": ids, "attention_mask": mask.astype(np.int64)})
            np.testing.assert_allclose(found["logits"], text_outputs(ids, mask)["logits"], rtol=1e-4, atol=1e-4)
        assert session.executed().integer_macs == (0 if self.tells else None)
        session.close()

    def test_damaged_model_is_refused(self, backend: Backend, target: Target, small_onnx: Path, tmp_path: Path) -> None:
        data = small_onnx.read_bytes()
        for name, content in {"half": data[: len(data) // 2], "empty": b"", "text": b"no model at all"}.items():
            broken = tmp_path / f"{name}.onnx"
            broken.write_bytes(content)
            with pytest.raises(BackendError) as caught:
                backend.compile(broken, target, tmp_path / "out")
            assert "\n" not in str(caught.value)
            assert broken.name in str(caught.value)

    def test_damaged_artifact_is_refused(self, backend: Backend, compiled: Callable[[str], Artifact]) -> None:
        artifact = compiled("int8")
        data = artifact.path.read_bytes()
        artifact.path.write_bytes(data[: len(data) // 2])
        with pytest.raises(BackendError, match=artifact.path.name):
            backend.open(artifact, simulated=self.simulated)
        artifact.path.unlink()
        with pytest.raises(BackendError, match="there is no artifact"):
            backend.open(artifact, simulated=self.simulated)

    def test_precision_is_read_back_from_the_runtime(self, opened: Callable[[str], Session]) -> None:
        quantized, floating = opened("int8").executed(), opened("fp32").executed()
        if not self.tells:
            assert (quantized.integer_macs, quantized.layers) == (floating.integer_macs, floating.layers) == (None, {})
            return
        assert floating.precision == "fp32"
        assert floating.integer_macs == 0
        assert sum(floating.layers.values()) == sum(quantized.layers.values()) == 11
        if self.simulated:
            assert quantized.precision == "fp32"
        else:
            assert quantized.precision == "int8"
            assert quantized.integer_macs is not None
            assert quantized.integer_macs >= 0.9

    def test_sessions_work_at_once_in_threads_of_their_own(self, compiled: Callable[[str], Artifact]) -> None:
        """As in several streams, or offline: opened here, asked there, each again and again."""
        if self.simulated:
            pytest.skip("what is simulated is not timed")
        images = pictures(6)
        with contextlib.ExitStack() as stack:
            sessions = open_sessions(compiled("fp32"), 2)
            for session in sessions:
                stack.callback(session.close)
            expected = self.logits(sessions[0], images)
            with ThreadPoolExecutor(2) as pool:
                for found in pool.map(lambda session: [self.logits(session, images) for _ in range(3)], sessions):
                    for answers in found:
                        np.testing.assert_array_equal(answers, expected)

    def test_it_is_closed_from_any_thread_and_more_than_once(self, opened: Callable[[str], Session]) -> None:
        session, image = opened("fp32"), pictures(1)
        session.run({"image": image})
        with ThreadPoolExecutor(1) as pool:
            pool.submit(session.close).result()
        session.close()
        with pytest.raises(BackendError, match="the session is closed: open another one"):
            session.run({"image": image})

    def test_a_start_is_timed_without_what_is_made_once(self, compiled: Callable[[str], Artifact]) -> None:
        if self.simulated:
            pytest.skip("what is simulated is not timed")
        artifact = compiled("fp32")
        prepare(artifact)
        before = contents(artifact.path.parent)
        cold = cold_start(artifact, {"image": pictures(1)}, threads=1)
        assert cold.cold_start_ms > 0
        assert cold.peak_rss_mb > 0
        assert contents(artifact.path.parent) == before
