"""The user's list of devices, and the addresses in it."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.devices import add_device, find_device, home, list_devices, remove_device
from edgetl.devices.connection import Address, parse_url
from edgetl.errors import DeviceError, UnknownNameError


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


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 99, "devices": {}}', '{"schema": 1, "devices": []}'])
def test_a_damaged_list_is_one_clear_error(own_home: Path, content: str) -> None:
    own_home.mkdir()
    (own_home / "devices.json").write_text(content)
    with pytest.raises(DeviceError, match=r"devices\.json"):
        list_devices()
    with pytest.raises(DeviceError, match=r"devices\.json"):
        add_device("board", "ssh://host")
    assert (own_home / "devices.json").read_text() == content


def test_an_entry_of_an_unknown_kind_names_its_remedy(own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "devices.json").write_text(json.dumps({"schema": 1, "devices": {"odd": {"kind": "telnet"}}}))
    with pytest.raises(DeviceError, match="edgetl devices remove odd"):
        find_device("odd")
    remove_device("odd")
    assert names() == ["local"]


def test_devices_added_at_once_are_all_kept(own_home: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_add, range(12)))
    assert len(names()) == 13


def _add(index: int) -> None:
    add_device(f"board-{index}", f"ssh://host-{index}")
