"""The user's list of devices, and the addresses in it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.base.errors import DeviceError, UnknownNameError
from edgetl.devices import (
    add_device,
    description,
    find_device,
    home,
    list_devices,
    probe_device,
    remove_device,
)
from edgetl.devices.connection import Address, parse_url
from tests.devices.real_sshd import Sshd


def names() -> list[str]:
    return [device.name for device in list_devices()]


def test_local_is_always_there_and_cannot_be_removed(own_home: Path) -> None:
    assert names() == ["local"]
    assert not own_home.exists()
    with pytest.raises(DeviceError, match="local is this machine"):
        remove_device("local")


def test_a_device_is_remembered_and_forgotten(own_home: Path) -> None:
    added = add_device("board", "ssh://me@board.example:2222?python=/opt/py/bin/python3")
    assert find_device("board") == added
    assert added.to_json() == {
        "name": "board",
        "kind": "ssh",
        "arch": "",
        "executed": "device",
        "where": "ssh://me@board.example:2222?python=/opt/py/bin/python3",
    }
    add_device("a-first", "ssh://other")
    assert names() == ["local", "a-first", "board"]
    remove_device("board")
    assert names() == ["local", "a-first"]
    with pytest.raises(UnknownNameError, match="unknown device 'board'"):
        remove_device("board")


@pytest.mark.parametrize("name", ["", "-x", "a/b", "..", "a b", "local", "x" * 65])
def test_names_that_are_no_names(own_home: Path, name: str) -> None:
    with pytest.raises(DeviceError):
        add_device(name, "ssh://host")
    assert names() == ["local"]


@pytest.mark.parametrize("name", ["../../precious", "..", "/precious", "a/../../../precious", ""])
def test_removing_deletes_nothing_outside_its_folder(own_home: Path, name: str) -> None:
    """``devices.toml`` may be edited by hand, or come with somebody's dotfiles."""
    precious = own_home.parent / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    (own_home / "devices/kept").mkdir(parents=True)
    (own_home / "devices.toml").write_text(f"schema = 2\n[devices.{json.dumps(name)}]\nkind = 'emulated'\n")
    with pytest.raises(DeviceError, match="no name of one"):
        list_devices()
    remove_device(name)
    assert names() == ["local"]
    assert (precious / "thesis.txt").read_text() == "years of work"
    assert (own_home / "devices/kept").is_dir()


def test_removing_follows_no_link(own_home: Path) -> None:
    precious = own_home.parent / "precious"
    precious.mkdir()
    (own_home / "devices").mkdir(parents=True)
    (own_home / "devices/board").symlink_to(precious)
    (own_home / "devices.toml").write_text("schema = 2\n[devices.board]\nkind = 'emulated'\n")
    remove_device("board")
    assert precious.is_dir()
    assert not (own_home / "devices/board").is_symlink()


def test_a_name_is_not_taken_twice(own_home: Path) -> None:
    add_device("board", "ssh://one")
    with pytest.raises(DeviceError, match="there is a device 'board' already"):
        add_device("board", "ssh://two")
    assert find_device("board").where == "ssh://one"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("board", "not the address"),
        ("http://board", "not the address"),
        ("ssh://", "not the address"),
        ("ssh://-oProxyCommand=true", "not the address"),
        ("ssh://-l@board", "not the address"),
        ("ssh://board/path", "not the address"),
        ("ssh://board:port", "not the address"),
        ("ssh://board:99999", "not the address"),
        ("ssh://me:secret@board", "must not hold a password"),
        ("ssh://board?pyton=/x", "options other than"),
        ("ssh://board?python=", "options other than"),
    ],
)
def test_addresses_that_are_none(own_home: Path, url: str, said: str) -> None:
    with pytest.raises(DeviceError, match=said) as caught:
        add_device("board", url)
    assert "secret" not in str(caught.value)
    assert names() == ["local"]


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.]{0,20}", fullmatch=True)
TEXT = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=20)


@given(
    host=NAMES,
    user=st.none() | NAMES | st.just("a b@c"),
    port=st.none() | st.integers(1, 65535),
    python=TEXT,
    config=st.none() | TEXT.map(lambda text: f"/etc/{text}"),
)
def test_an_address_survives_being_written_and_read(
    host: str, user: str | None, port: int | None, python: str, config: str | None
) -> None:
    resolved = str(Path(config).absolute()) if config else None
    address = Address(host, user, port, python, resolved)
    assert parse_url(address.url) == address


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGETL_HOME", str(tmp_path / "own"))
    assert home() == tmp_path / "own"
    monkeypatch.delenv("EDGETL_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert home() == tmp_path / "xdg" / "edgetl"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".config" / "edgetl"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("devices.toml", "schema = "),
        ("devices.toml", "[devices.board]\nkind = 'ssh'\n"),
        ("devices.toml", "schema = 99\n[devices]\n"),
        ("devices.toml", "schema = 2\ndevices = 'board'\n"),
        ("devices.toml", "schema = 2\n[devices]\nboard = 'ssh://board'\n"),
        ("devices.json", "{"),
        ("devices.json", "[]"),
        ("devices.json", '{"schema": 99, "devices": {}}'),
        ("devices.json", '{"schema": 1, "devices": []}'),
    ],
)
def test_a_damaged_list_is_one_clear_error(own_home: Path, file: str, content: str) -> None:
    own_home.mkdir()
    (own_home / file).write_text(content)
    with pytest.raises(DeviceError, match=file) as caught:
        list_devices()
    assert "\n" not in str(caught.value)
    with pytest.raises(DeviceError, match=file):
        add_device("board", "ssh://host")
    assert (own_home / file).read_text() == content
    assert not (own_home / "devices.toml").exists() or file == "devices.toml"


def test_an_entry_of_an_unknown_kind_names_its_remedy(own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "devices.toml").write_text('schema = 2\n[devices.odd]\nkind = "telnet"\n')
    with pytest.raises(DeviceError, match="edgetl devices remove odd"):
        find_device("odd")
    remove_device("odd")
    assert names() == ["local"]


def test_the_older_list_is_read_and_written_anew(own_home: Path) -> None:
    own_home.mkdir()
    older = own_home / "devices.json"
    entries = {"pi": {"kind": "emulated", "arch": "aarch64"}, "board": {"kind": "ssh", "url": "ssh://me@board"}}
    older.write_text(json.dumps({"schema": 1, "devices": entries}))
    assert names() == ["local", "board", "pi"]
    assert older.exists(), "reading changes nothing"
    add_device("another", "ssh://other")
    assert names() == ["local", "another", "board", "pi"]
    assert find_device("board").where == "ssh://me@board"
    assert not older.exists()


def test_what_was_written_by_hand_stays(own_home: Path) -> None:
    own_home.mkdir()
    file = own_home / "devices.toml"
    file.write_text("# the shop\nschema = 2\n\n[devices.till] # by the door\nkind = 'ssh'\nurl = 'ssh://till'\n")
    add_device("board", "ssh://board")
    remove_device("board")
    add_device("camera.2", "ssh://camera")
    assert "# the shop" in file.read_text()
    assert "[devices.till] # by the door" in file.read_text()
    assert names() == ["local", "camera.2", "till"]


@given(st.lists(st.tuples(TEXT.map(lambda text: f"/opt/{text}"), NAMES), min_size=1, max_size=4))
def test_any_address_survives_in_the_list(found: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setenv("EDGETL_HOME", folder)
        wanted = {f"board-{index}": Address(host, python=python) for index, (python, host) in enumerate(found)}
        for name, address in wanted.items():
            add_device(name, address.url)
        listed = {d.name: parse_url(d.where) for d in list_devices() if d.kind == "ssh"}
        assert listed == wanted
        assert set(tomllib.loads((Path(folder) / "devices.toml").read_text())["devices"]) == set(wanted)


def test_what_a_probe_found_is_kept(own_home: Path, sshd: Sshd) -> None:
    add_device("board", sshd.url(sshd.client("good")))
    assert (find_device("board").arch, description("board")) == ("", {})
    found = probe_device("board")
    assert found.reachable, found.reason
    kept = description("board")
    assert find_device("board").arch == kept["arch"] == platform.machine()
    assert kept["cores"] == os.cpu_count()
    assert kept["packages"]["onnxruntime"] == found.packages["onnxruntime"]
    assert set(kept["sensors"]) == {"temperature", "power", "energy"}
    assert kept["memory_mb"] > 0
    assert "load_1min" not in kept
    assert parse_url(find_device("board").where) == parse_url(sshd.url(sshd.client("good")))


def test_the_command_line_adds_with_and_without_a_probe(
    own_home: Path, sshd: Sshd, edgetl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    here = {"EDGETL_HOME": str(own_home)}
    added = edgetl("devices", "add", "board", sshd.url(sshd.client("good")), "--json", **here)
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["probe"]["reachable"]
    dead = edgetl("devices", "add", "dead", "ssh://127.0.0.1:1", **here)
    assert dead.returncode == 0
    assert "note: dead cannot be reached" in dead.stderr
    later = edgetl("devices", "add", "later", "ssh://127.0.0.1:1", "--no-probe", **here)
    assert (later.returncode, later.stderr) == (0, "")
    listed = json.loads(edgetl("devices", "--json", **here).stdout)["devices"]
    assert {d["name"]: d["arch"] for d in listed} == {
        "local": platform.machine(),
        "board": platform.machine(),
        "dead": "",
        "later": "",
    }
    shown = edgetl("devices", "probe", "board", **here)
    assert "ISA features" in shown.stdout
    assert "board: can be used" in shown.stdout


def test_devices_added_at_once_are_all_kept(own_home: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_add, range(12)))
    assert len(names()) == 13


def _add(index: int) -> None:
    add_device(f"board-{index}", f"ssh://host-{index}")
