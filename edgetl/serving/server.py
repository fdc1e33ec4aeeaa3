"""The process that serves: it listens, keeps what strangers send within bounds, and ends without losing an answer."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
import struct
import sys
import threading
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgetl.base.errors import EdgetlError
from edgetl.serving.application import Service, app, on_stderr

#: Bytes of a request before its body, and seconds in which they have to arrive.
_MOST_HEAD, _HEAD_S = 1 << 16, 30.0
#: Connections that the kernel may hold until they are accepted.
_BACKLOG = 2048
#: Seconds in which clients with an open connection may send what they were about to, once the server is to end.
_LINGER_S, _LOOK_S = 2.0, 0.02
#: Seconds in which the last answers have to be taken: who does not read holds up the end no longer.
_END_S = 60
#: Of Linux: "return so many bytes of the packet", and the option that has a socket filter its packets.
_BPF_RET, _SO_ATTACH_FILTER = 0x06, 26


@dataclass(frozen=True)
class Listening:
    """Where a server listens.

    Attributes:
        host, port: of it.
        models: name → digest of the version in charge.
    """

    host: str
    port: int
    models: Mapping[str, str]

    @property
    def url(self) -> str:
        """That clients open."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class _Protocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests begin within bounds of size and time; uvicorn's own has none before the body."""

    _head = 0
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # An answer is written in two parts, and the second would wait for the first to be acknowledged: 40 ms. asyncio
        # sees to that for sockets that it has made itself.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._head > _MOST_HEAD and not self.transport.is_closing():
            self.send_400_response("Request header too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        self._arrived()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(_HEAD_S, self.transport.close)

    def _arrived(self) -> None:
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    """Ends well when it is asked to: status 0, and every request that reached it is answered."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._started = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, answer on those that there are, and close each with its answer."""
        self._service.draining = True
        for listening in sockets or ():
            _take_no_more(listening)
        loop = asyncio.get_running_loop()
        end = loop.time() + _LINGER_S
        # One look at least: what the kernel has taken before is accepted meanwhile.
        await asyncio.sleep(_LOOK_S)
        while self.server_state.connections and loop.time() < end:
            await asyncio.sleep(_LOOK_S)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own raises them again at the end, which would make the exit status theirs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _take_no_more(listening: socket.socket) -> None:
    """Have the kernel ignore who wants to connect: a connection that it takes and nobody accepts is reset at the end.

    Linux alone has a filter for that (socket(7), SO_ATTACH_FILTER); it is one instruction, which keeps nothing.
    """
    if sys.platform != "linux":
        return
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RET, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _listening(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise EdgetlError(f"cannot listen on {host}:{port} ({why})", "give another --host or --port") from error


def serve(
    bundles: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
    *,
    names: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int | None = None,
    queue: int = 64,
    max_body: float = 16.0,
    max_batch: int = 32,
    public_key: str | Path | None = None,
    tell: Callable[[str], None] = on_stderr,
    started: Callable[[Listening], None] | None = None,
) -> None:
    """Serve bundles over HTTP until SIGTERM or SIGINT; what was asked until then is answered.

    A path that is a link, such as ``current`` of what was deployed, is looked at once a second: a new release takes the
    next requests when it has passed its self-test, and what the old one has begun it ends.

    Args:
        bundles: one folder or several, or folders by the names of their models.
        names: of the models, in order; by default the folders' own, of ``NAME/current`` that of the deployment.
        host, port: to listen on; port 0 is any free one.
        threads: of the runtime, for one inference at a time; None: as many inferences at once as there are cores,
            where the runtime allows that.
        queue: requests of a model that may wait while others run; more are answered 503.
        max_body: MiB of a request; more is answered 413.
        max_batch: samples of a request; more are answered 400.
        public_key: that must have signed the bundles, now and after a deploy: a file, or 64 hexadecimal digits.
        tell: told, in a sentence, of each new version and of what failed; standard error by default.
        started: told where it listens, once it does.

    Raises:
        EdgetlError: a bundle is damaged, fails its self-test here or cannot run here, a name stands twice, or the port
            is taken: before anything is served.
    """
    with _listening(host, port) as socket_:
        made = app(
            bundles, names=names, threads=threads, queue=queue, max_body=max_body, max_batch=max_batch,
            public_key=public_key, tell=tell,
        )  # fmt: skip
        service: Service = made.state.service

        def listening() -> None:
            if started is not None:
                found = {name: model.version.digest for name, model in service.models.items()}
                started(Listening(host, socket_.getsockname()[1], found))

        config = uvicorn.Config(
            made, http=_Protocol, ws="none", loop="asyncio", lifespan="on", backlog=_BACKLOG, log_config=None,
            log_level="critical", access_log=False, server_header=False, timeout_graceful_shutdown=_END_S,
        )  # fmt: skip
        _Server(config, service, listening).run([socket_])
