"""This machine as a device."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgetl import runtime
from edgetl.base.errors import DeviceError, UnknownNameError
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.devices import answer, bench, find_device, predict, selftest, ssh
from edgetl.devices.payload import import_root, payload, payload_digest, write_payload
from edgetl.devices.placement import check_fits
from edgetl.devices.ssh import OLDEST_PYTHON
from edgetl.runtime.plan import Plan
from tests.devices.real_sshd import Heard, children, wait_for


def test_a_fresh_process_gives_the_same_logits_as_this_one(bundle: Bundle, jpegs: list[Path]) -> None:
    found = predict(find_device("local"), bundle, jpegs, threads=1)["logits"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, runtime.predict(bundle, jpegs, threads=1)["logits"])
    assert np.ptp(found, axis=0).min() > 0, "the images must give different logits for order to show"


def test_the_order_of_the_images_is_kept_and_repeats_are_allowed(bundle: Bundle, jpegs: list[Path]) -> None:
    order = [jpegs[3], jpegs[0], jpegs[3]]
    found = predict(find_device("local"), bundle, order, role="float", threads=1)["logits"]
    np.testing.assert_array_equal(found, runtime.predict(bundle, order, role="float", threads=1)["logits"])


def test_answers_of_a_device_are_those_of_a_program(host_bundle: Bundle, jpegs: list[Path]) -> None:
    with runtime.open_bundle(host_bundle) as model:
        here = model.predict(jpegs[:3], top=2)
    there = answer(host_bundle, jpegs[:3], "local", top=2)
    assert [one.label for one in there] == [one.label for one in here]
    for one, other in zip(there, here, strict=True):
        assert one.probability == pytest.approx(other.probability)
        assert len(one.top) == 2


def test_a_device_of_another_instruction_set_is_refused(bundle: Bundle, host_bundle: Bundle) -> None:
    """The bundle is made for 64-bit Arm; this machine is what it is."""
    local = find_device("local")
    check_fits(host_bundle, local, local.arch)
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[local.arch]
    with pytest.raises(DeviceError, match=f"local is {other}, and .* is made for .*: choose another device"):
        check_fits(host_bundle, local, other)
    check_fits(bundle, local, "")


def test_relative_paths_are_of_this_process(bundle: Bundle, jpegs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jpegs[0].parent)
    found = predict(find_device("local"), bundle, [Path(jpegs[0].name)])["logits"]
    np.testing.assert_allclose(found, runtime.predict(bundle, jpegs[:1])["logits"])


def test_progress_there_is_told_here(bundle: Bundle, jpegs: list[Path], heard: Heard) -> None:
    told, listen = heard
    predict(find_device("local"), bundle, jpegs, progress=listen)
    assert [done for _, done, total, _ in told if total == len(jpegs)] == list(range(len(jpegs) + 1))


def test_no_images_give_no_logits(bundle: Bundle) -> None:
    assert predict(find_device("local"), bundle, [])["logits"].shape == (0, len(bundle.labels))


def test_local_says_host_and_can_be_used() -> None:
    device = find_device("local")
    probe = device.probe()
    assert device.executed == "host"
    assert probe.reachable, probe.reason
    assert probe.python == sys.version.split()[0]
    assert probe.packages["numpy"] == np.__version__
    assert probe.machine.arch == device.arch


def test_bench_and_selftest_answer(bundle: Bundle) -> None:
    record = bench(find_device("local"), bundle, Plan(seconds=0))
    assert {"deployed", "float"} == set(record.samples_ms)
    assert record.executed["deployed"].precision == "int8"
    assert selftest(find_device("local"), bundle).passed


def test_a_damaged_image_is_named_in_one_line(bundle: Bundle, jpegs: list[Path], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(jpegs[0].read_bytes()[:400])
    with pytest.raises(DeviceError, match=r"^local: .*damaged\.jpg is a damaged image") as caught:
        predict(find_device("local"), bundle, [jpegs[0], damaged])
    assert "\n" not in str(caught.value)


def test_a_name_that_cannot_stand_on_a_line_is_refused(bundle: Bundle, jpegs: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / "two\nlines.jpg"
    odd.write_bytes(jpegs[0].read_bytes())
    with pytest.raises(DeviceError, match="line break"):
        predict(find_device("local"), bundle, [odd])


def test_an_altered_bundle_is_refused(bundle: Bundle, jpegs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    opened = load_bundle(copy)
    model = opened.artifact().path
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DeviceError, match="altered or damaged"):
        predict(find_device("local"), opened, jpegs[:1])


def test_the_users_import_path_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python finds only there, the fresh process finds too: a module that leaves a mark when it starts."""
    (tmp_path / "sitecustomize.py").write_text("import pathlib; pathlib.Path(__file__).with_name('mark').touch()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert find_device("local").probe().reachable
    assert (tmp_path / "mark").exists()


def test_a_killed_caller_leaves_neither_work_nor_folder(bundle: Bundle, jpegs: list[Path], tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from edgetl.devices import find_device, predict\n"
        "from edgetl.core.bundle import load_bundle\n"
        "predict(find_device('local'), load_bundle(sys.argv[1]), [pathlib.Path(sys.argv[2])] * 100_000)"
    )
    command = [sys.executable, "-c", program, str(bundle.path), str(jpegs[0])]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(import_root())}
    caller = subprocess.Popen(command, env=environment)
    wait_for(lambda: list(tmp_path.glob("edgetl-call-*/samples.txt")) and children(caller.pid))
    (worker,) = children(caller.pid)
    caller.kill()
    caller.wait()
    wait_for(lambda: not Path(f"/proc/{worker}").exists() and not list(tmp_path.glob("edgetl-*")))
    assert not Path(f"/proc/{worker}").exists()
    assert not list(tmp_path.glob("edgetl-*"))


def test_an_unknown_device_offers_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown device 'locl'.*local.*edgetl devices"):
        find_device("locl")


def test_the_payload_is_all_that_the_runtime_imports(tmp_path: Path) -> None:
    write_payload(tmp_path)
    modules = [name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in payload()]
    program = (
        "import importlib, sys; import edgetl; assert edgetl.__file__.startswith(sys.argv[1]), edgetl.__file__\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
        "print(*sorted({n.split('.')[0] for n in sys.modules} & {'torch', 'typer', 'rich', 'timm', 'onnx'}))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), *modules]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_payload_runs_on_the_oldest_python_of_a_device() -> None:
    """JetPack 6 has Python 3.10. Names that came with 3.11 are refused by spelling: no older Python is needed here.

    A definition that a user writes in TOML is read on the host: a function may import ``tomllib``, a module may not.
    """
    newer = {"file_digest", "StrEnum", "Self", "ExceptionGroup", "UTC", "chdir", "override", "batched"}
    receiver = (Path(ssh.__file__).parent / "receiver.py").read_text()
    for name, source in {**payload(), "receiver.py": receiver}.items():
        tree = ast.parse(source, feature_version=OLDEST_PYTHON)
        used = {getattr(node, "attr", getattr(node, "id", None)) for node in ast.walk(tree)}
        used |= {
            alias.name for node in ast.walk(tree) for alias in getattr(node, "names", []) if hasattr(alias, "name")
        }
        assert not used & newer, f"{name} needs a newer Python"
        assert "tomllib" not in {alias.name for node in tree.body for alias in getattr(node, "names", [])}, name


def test_the_payload_digest_names_its_content() -> None:
    content = payload()
    assert payload_digest(content) == payload_digest(dict(reversed(content.items())))
    assert payload_digest(content) != payload_digest({**content, "edgetl/core/bundle.py": b"#"})
