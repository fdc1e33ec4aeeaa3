"""What a server does under load, with too much, with what never ends, as it is told to end, and after a deploy."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import edgetl
from edgetl.base.errors import EdgetlError
from edgetl.core.bundle import Bundle
from edgetl.runtime.releases import data_home, install
from edgetl.serving import app
from tests.runtime import tiny
from tests.serving.conftest import image_bundle
from tests.serving.process import Served, serving

INFER, PREDICT = "/v2/models/pictures/infer", "/v2/models/pictures/predict"
IMAGE = tiny.pictures(1, seed=3)
ASKED = json.dumps(
    {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 32, 24, 3], "data": IMAGE.ravel().tolist()}]}
).encode()


@contextlib.contextmanager
def begun(server: Served, path: str, body: bytes) -> Iterator[socket.socket]:
    """A request whose body is announced and has not come, but for its first byte."""
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:1])
        yield connection


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Status and value of the answer that a connection gets."""
    found = http.client.HTTPResponse(connection)
    found.begin()
    return found.status, json.loads(found.read())


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def metric(server: Served, name: str) -> float:
    """A sample of /metrics, by its name and labels as they stand there; 0 where it is not told yet."""
    text = server.ask("GET", "/metrics")[2].decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def test_a_body_that_is_too_large_is_not_read(served: Served) -> None:
    status, _, body = served.ask("POST", PREDICT, b"x", {"Content-Length": str(1 << 40)})
    assert (status, "--max-body" in body.decode()) == (413, True)
    assert served.ask("POST", PREDICT, b"x" * (1 << 20))[0] == 400
    assert served.ask("POST", PREDICT, b"x" * ((1 << 20) + 1))[0] == 413
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1 << 16
            yield b"x" * (1 << 16)

    assert served.ask("POST", PREDICT, endless(), {"Transfer-Encoding": "chunked"})[0] == 413
    assert sent > 1 << 20


def test_a_head_without_end_is_cut_off(served: Served) -> None:
    for start in (b"GET /" + b"a" * (1 << 17), b"GET / HTTP/1.1\r\nA: " + b"a" * (1 << 17)):
        with socket.create_connection((served.host, served.port), timeout=30) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(start)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
                assert connection.recv(1 << 16) == b""


def test_what_is_no_http_is_refused(served: Served) -> None:
    with socket.create_connection((served.host, served.port), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00hello\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


def test_a_full_queue_says_when_to_come_again(served: Served) -> None:
    before = metric(served, 'edgetl_requests_total{model="pictures",route="predict",status="503"}')
    with contextlib.ExitStack() as stack:
        waiting = []
        while True:
            waiting.append(stack.enter_context(begun(served, INFER, ASKED)))
            until(lambda: metric(served, 'edgetl_requests_in_progress{model="pictures"}') >= min(len(waiting), 5))
            status, headers, body = served.ask("POST", PREDICT, b"x")
            if status == 503:
                break
            assert status == 400
            assert len(waiting) < 20, "a queue of 4, and as many inferences as cores"
        assert headers["retry-after"] == "1"
        assert "try again" in json.loads(body)["error"]
        assert served.ask("POST", "/v2/models/texts/predict", b"good")[0] == 200, "another model has a queue of its own"
        assert metric(served, 'edgetl_requests_total{model="pictures",route="predict",status="503"}') == before + 1
        for connection in waiting:
            connection.sendall(ASKED[1:])
        assert {answer(connection)[0] for connection in waiting} == {200}
    assert served.ask("POST", INFER, ASKED)[0] == 200


def test_who_leaves_gives_the_place_back(served: Served) -> None:
    for _ in range(12):
        with begun(served, INFER, ASKED):
            pass
    until(lambda: metric(served, 'edgetl_requests_in_progress{model="pictures"}') == 0)
    assert served.ask("POST", INFER, ASKED)[0] == 200


def test_metrics_count_what_was_asked_and_name_no_model_that_is_none(
    served: Served, bundles: dict[str, Bundle]
) -> None:
    name = 'edgetl_requests_total{model="pictures",route="infer",status="200"}'
    before, inferences = metric(served, name), metric(served, 'edgetl_inference_seconds_count{model="pictures"}')
    assert served.ask("POST", INFER, ASKED)[0] == 200
    served.ask("POST", "/v2/models/made-up/infer", b"{}")
    assert metric(served, name) == before + 1
    assert metric(served, 'edgetl_inference_seconds_count{model="pictures"}') == inferences + 1
    assert metric(served, f'edgetl_model_version{{digest="{bundles["pictures"].digest}",model="pictures"}}') == 1
    status, headers, text = served.ask("GET", "/metrics")
    assert (status, headers["content-type"].startswith("text/plain; version=0.0.4")) == (200, True)
    assert b"made-up" not in text


class Asker(threading.Thread):
    """Asks without pause, on a connection that is kept, until nobody listens any more; counts what came back."""

    def __init__(self, server: Served) -> None:
        super().__init__()
        self._server = server
        self.answered, self.lost = 0, list[str]()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._server.host, self._server.port, timeout=60)
        while True:
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                return
            try:
                connection.request("POST", INFER, ASKED)
                response = connection.getresponse()
                assert json.loads(response.read())["outputs"][0]["shape"] == [1, 4]
                self.answered += 1
            except (OSError, http.client.HTTPException, KeyError) as error:
                self.lost.append(repr(error))
                return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_end_loses_no_answer(bundles: dict[str, Bundle], number: signal.Signals) -> None:
    with serving(bundles["pictures"].path) as server:
        askers = [Asker(server) for _ in range(6)]
        for asker in askers:
            asker.start()
        until(lambda: all(asker.answered > 3 for asker in askers))
        # One that is halfway through its body, and one that has not begun.
        with begun(server, INFER, ASKED) as halfway, socket.create_connection((server.host, server.port)):
            before = sum(asker.answered for asker in askers)
            server.process.send_signal(number)
            time.sleep(0.5)
            halfway.sendall(ASKED[1:])
            assert answer(halfway)[0] == 200
            assert server.process.wait(timeout=60) == 0
        for asker in askers:
            asker.join()
        assert [asker.lost for asker in askers] == [[]] * 6
        assert sum(asker.answered for asker in askers) > before
        assert server.errors.read_text() == ""
        assert server.process.stdout is not None
        assert server.process.stdout.read() == "", "one JSON object, and no more"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test deploys to."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return data_home()


def test_a_deploy_takes_over_and_what_fails_does_not(home: Path, tmp_path: Path) -> None:
    first, second = image_bundle(tmp_path / "first"), image_bundle(tmp_path / "second", seed=1)
    third, wrong = image_bundle(tmp_path / "third", seed=2), image_bundle(tmp_path / "wrong", seed=3, wrong=True)
    install(first, "pictures", threads=1)
    current = home / "pictures" / "current"

    def version() -> str:
        return str(server.json("POST", INFER, ASKED)["model_version"])

    with serving(current) as server:
        assert (server.models, version()) == ({"pictures": first.digest}, first.digest)
        with begun(server, INFER, ASKED) as old:
            until(lambda: metric(server, 'edgetl_requests_in_progress{model="pictures"}') == 1)
            install(second, "pictures", threads=1)
            until(lambda: version() == second.digest)
            # By now the folder of the first is removed.
            install(third, "pictures", threads=1)
            until(lambda: version() == third.digest)
            assert not (home / "pictures" / "releases" / first.digest).exists()
            old.sendall(ASKED[1:])
            status, found = answer(old)
            assert (status, found["model_version"]) == (200, first.digest)
        status, _, told = server.ask("POST", f"/v2/models/pictures/versions/{first.digest}/infer", ASKED)
        assert (status, third.digest in told.decode()) == (404, True)
        link(current, wrong.path)
        until(lambda: metric(server, 'edgetl_reloads_total{model="pictures",outcome="refused"}') == 1)
        assert version() == third.digest
        link(current, tmp_path / "nowhere")
        link(current, second.path)
        until(lambda: version() == second.digest)
        assert server.json("GET", "/v2/models/pictures/ready") == {"name": "pictures", "ready": True}
        lines = server.errors.read_text().splitlines()
        assert metric(server, 'edgetl_reloads_total{model="pictures",outcome="taken"}') == 3
    assert [re.sub(r"[0-9a-f]{12}", "DIGEST", line).split(":")[0] for line in lines] == [
        *["pictures is now DIGEST, which passed its self-test"] * 2,
        "pictures stays at DIGEST",
        "pictures is now DIGEST, which passed its self-test",
    ]
    assert "fails its self-test here: the golden outputs differ" in lines[2]


def link(current: Path, leads_to: Path) -> None:
    """Have a link lead elsewhere, in one step."""
    other = current.with_name("other")
    other.symlink_to(leads_to)
    other.replace(current)


def test_what_cannot_be_served_is_one_line(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    wrong = image_bundle(tmp_path / "wrong", wrong=True).path
    pictures = bundles["pictures"].path
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refusals: list[tuple[str, Any, dict[str, Any]]] = [
            ("fails its self-test here", [pictures, wrong], {}),
            ("is not a bundle", tmp_path, {}),
            ("two models are called 'pictures'.* --name", [pictures, pictures], {}),
            ("1 bundles have 2 names.* --name", [pictures], {"names": ["a", "b"]}),
            ("'a/b' cannot name the model", {"a/b": pictures}, {}),
            ("cannot listen on .* --port", pictures, {"port": taken.getsockname()[1]}),
            ("not signed", pictures, {"public_key": "0" * 64}),
        ]
        for said, given, options in refusals:
            with pytest.raises(EdgetlError, match=said) as caught:
                edgetl.serve(given, **{"port": 0, **options})
            assert "\n" not in str(caught.value)


def test_the_command_line_ends_with_2_and_one_json_object(
    edgetl: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = edgetl("serve", tmp_path, "--port", "0", "--json")
    assert (done.returncode, json.loads(done.stdout)["exit_status"]) == (2, 2)
    assert "is not a bundle" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_limits_that_are_none_in_python(bundles: dict[str, Bundle]) -> None:
    for limits in ({"queue": -1}, {"max_body": float("nan")}, {"max_batch": 0}):
        with pytest.raises(EdgetlError, match="are no limits"):
            edgetl.serve(bundles["pictures"].path, port=0, **limits)
    with pytest.raises(EdgetlError, match="no bundle to serve"):
        edgetl.serve([], port=0)


def test_an_application_for_a_server_of_ones_own(bundles: dict[str, Bundle]) -> None:
    made = app({"birds": bundles["pictures"].path}, threads=1)
    server = uvicorn.Server(uvicorn.Config(made, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    connection = http.client.HTTPConnection(*server.servers[0].sockets[0].getsockname(), timeout=60)
    connection.request("POST", "/v2/models/birds/infer", ASKED)
    assert json.loads(connection.getresponse().read())["model_name"] == "birds"
    connection.close()
    server.should_exit = True
    thread.join(timeout=60)
    assert not thread.is_alive()
