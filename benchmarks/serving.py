"""A bundle behind ``edgetl serve`` against the same bundle asked in process: latency, throughput, memory, and its end.

    python benchmarks/serving.py BUNDLE FILE [--seconds 20] [--connections 8] [--requests 100000] [--out FILE]

FILE is a sample as the bundle reads it: a JPEG, a text, an .npz. It is asked for in three ways:

- in process: ``Predictor.predict`` of the file's bytes, again and again, by one thread; all cores work on each
  inference, or one;
- over HTTP, the same bytes to ``/predict``, and the network's own input as binary tensors to ``/infer``: on one
  connection, which tells what serving adds, and on several, which tells how many answers a second there are;
- until the server has answered ``--requests``, with its resident memory after each twentieth of them.

At last SIGTERM comes while all connections ask: the exit status, and requests that were sent and not answered.

The load is made by ``wrk`` (Debian) where it is installed, else by threads of this script, which share the machine's
cores with the server as wrk does. Nothing else may run: the load averages before and after are in the record.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.extras import version
from edgetl.base.storage import write_json
from edgetl.core.bundle import load_bundle
from edgetl.inputs import input_of
from edgetl.runtime import open_bundle
from edgetl.runtime.machine import machine
from edgetl.serving.protocol import DATATYPES
from tests.serving.process import Served, serving

RESULTS = Path(__file__).parent / "results" / "serving.json"
_LUA = """
local file = io.open(os.getenv("BODY"), "rb")
wrk.method, wrk.body = "POST", file:read("*a")
local length = os.getenv("HEAD")
if length ~= "" then wrk.headers["Inference-Header-Content-Length"] = length end
"""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Asked:
    """One way to ask.

    Attributes:
        path: of the URL.
        body: of the request.
        head: bytes of JSON in it; None where it has no such header.
    """

    path: str
    body: bytes
    head: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Beside those that every request has."""
        return {} if self.head is None else {"Inference-Header-Content-Length": str(self.head)}


@dataclass(frozen=True)
class Load:
    """How asking went: answers a second, latency in milliseconds, answers other than 200, broken connections."""

    connections: int
    rate: float
    p50: float
    p99: float
    refused: int
    broken: int


def in_process(bundle: Path, content: bytes, seconds: float, threads: int | None) -> dict[str, float]:
    """Ask in this process, by one thread."""
    with open_bundle(bundle, threads=threads) as model:
        for _ in range(20):
            model.predict(content)
        taken, began = [], time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            model.predict(content)
            taken.append(time.perf_counter() - start)
    p50, p99 = np.percentile(np.array(taken) * 1e3, (50, 99))
    return {"rate": len(taken) / sum(taken), "p50": float(p50), "p99": float(p99)}


def tensors(bundle: Path, name: str, content: bytes) -> Asked:
    """The network's own input for a sample, in binary."""
    feeds = input_of(load_bundle(bundle)).feeds(content)
    entries = [
        {
            "name": key,
            "datatype": DATATYPES[values.dtype.name],
            "shape": values.shape,
            "parameters": {"binary_data_size": values.nbytes},
        }
        for key, values in feeds.items()
    ]
    head = json.dumps({"inputs": entries, "parameters": {"binary_data_output": True}}).encode()
    body = b"".join((head, *(values.tobytes() for values in feeds.values())))
    return Asked(f"/v2/models/{name}/infer", body, len(head))


def by_wrk(server: Served, asked: Asked, connections: int, seconds: float) -> Load:
    """The load that ``wrk`` makes."""
    with tempfile.TemporaryDirectory() as folder:
        script, body = Path(folder) / "post.lua", Path(folder) / "body"
        script.write_text(_LUA)
        body.write_bytes(asked.body)
        url = f"http://{server.host}:{server.port}{asked.path}"
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--latency",
            "-s",
            str(script),
            url,
        ]
        head = "" if asked.head is None else str(asked.head)
        environment = {**os.environ, "BODY": str(body), "HEAD": head}
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    shares = {
        share: float(value) * _UNITS[unit] for share, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", said)
    }
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None, said
    refused, broken = int(other[1]) if other else 0, sum(map(int, errors.groups())) if errors else 0
    return Load(connections, float(rate[1]), shares["50"], shares["99"], refused, broken)


class Asker(threading.Thread):
    """Asks without pause on one connection until the time is over, or nobody listens."""

    def __init__(self, server: Served, asked: Asked, end: float) -> None:
        super().__init__()
        self._server, self._asked, self._end = server, asked, end
        self.taken, self.refused, self.broken = list[float](), 0, 0

    def run(self) -> None:
        """Ask."""
        connection = http.client.HTTPConnection(self._server.host, self._server.port, timeout=60)
        while (start := time.perf_counter()) < self._end:
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                return
            try:
                connection.request("POST", self._asked.path, self._asked.body, self._asked.headers)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                self.broken += 1
                connection.close()
                continue
            self.taken.append(time.perf_counter() - start)
            self.refused += response.status != 200


@contextmanager
def asking(server: Served, asked: Asked, connections: int, seconds: float) -> Iterator[list[Asker]]:
    """Threads that ask while the block runs, and until their time is over."""
    askers = [Asker(server, asked, time.perf_counter() + seconds) for _ in range(connections)]
    for asker in askers:
        asker.start()
    try:
        yield askers
    finally:
        for asker in askers:
            asker.join()


def by_threads(server: Served, asked: Asked, connections: int, seconds: float) -> Load:
    """The load that this script makes by itself."""
    with asking(server, asked, connections, seconds) as askers:
        pass
    taken = np.array([x for asker in askers for x in asker.taken]) * 1e3
    p50, p99 = np.percentile(taken, (50, 99))
    refused, broken = sum(asker.refused for asker in askers), sum(asker.broken for asker in askers)
    return Load(connections, len(taken) / seconds, float(p50), float(p99), refused, broken)


def resident(process: int) -> float:
    """MiB of memory that a process has (Linux)."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def answered(server: Served) -> int:
    """Requests that it says it has answered."""
    text = server.ask("GET", "/metrics")[2].decode()
    return int(sum(float(value) for value in re.findall(r"^edgetl_requests_total\{.*\} (\S+)$", text, re.M)))


def memory(server: Served, asked: Asked, connections: int, requests: int, rate: float) -> list[tuple[int, float]]:
    """(answered requests, MiB) after each twentieth of as many requests."""
    ask = by_wrk if shutil.which("wrk") else by_threads
    first = answered(server)
    found = [(0, resident(server.process.pid))]
    while found[-1][0] < requests:
        ask(server, asked, connections, max(1.0, requests / 20 / rate))
        found.append((answered(server) - first, round(resident(server.process.pid), 1)))
    return found


def drained(server: Served, asked: Asked, connections: int) -> dict[str, Any]:
    """SIGTERM while all connections ask."""
    with asking(server, asked, connections, 60) as askers:
        while not all(asker.taken for asker in askers):
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        began = time.perf_counter()
        status = server.process.wait(timeout=60)
        seconds = time.perf_counter() - began
    return {
        "exit_status": status,
        "seconds": round(seconds, 2),
        "answered": sum(len(asker.taken) for asker in askers),
        "lost": sum(asker.broken for asker in askers),
    }


def measure(bundle: Path, file: Path, seconds: float, connections: int, requests: int) -> dict[str, Any]:
    """The whole record."""
    content, load = file.read_bytes(), os.getloadavg()
    ask = by_wrk if shutil.which("wrk") else by_threads
    record: dict[str, Any] = {
        "in_process": {
            "all_cores": in_process(bundle, content, seconds, None),
            "one_thread": in_process(bundle, content, seconds, 1),
        }
    }
    with serving(bundle, "--name", "model") as server:
        ways: Mapping[str, Asked] = {
            "predict": Asked("/v2/models/model/predict", content),
            "infer": tensors(bundle, "model", content),
        }
        for name, asked in ways.items():
            loads = [ask(server, asked, count, seconds) for count in (1, connections)]
            record[name] = [asdict(found) for found in loads]
        rate = record["infer"][-1]["rate"]
        record["memory_mib"] = memory(server, ways["infer"], connections, requests, rate) if requests else []
        record["sigterm"] = drained(server, ways["infer"], connections)
    packages = ("starlette", "uvicorn", "httptools", "prometheus_client", "onnxruntime", "numpy")
    return {
        **record,
        "bundle": {"target": load_bundle(bundle).target, "precision": load_bundle(bundle).precision},
        "sample_bytes": len(content),
        "client": "wrk" if shutil.which("wrk") else "threads of this script",
        "seconds": seconds,
        "load_average": {"before": load[0], "after": os.getloadavg()[0]},
        "machine": machine(),
        "versions": {name: version(name) for name in packages},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="that each way of asking takes")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--requests", type=int, default=100_000, help="over which memory is looked at; 0 for none")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = measure(options.bundle.resolve(), options.file, options.seconds, options.connections, options.requests)
    write_json(options.out, found)
    for name in ("in_process", "predict", "infer", "memory_mib", "sigterm", "load_average"):
        print(name, found[name])


if __name__ == "__main__":
    main()
