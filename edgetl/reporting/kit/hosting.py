"""What runs ``edgetl serve`` on a device: a unit for systemd and a Dockerfile."""

from __future__ import annotations

import json
from collections.abc import Iterator

from edgetl.reporting.kit.quoting import model_name
from edgetl.reporting.kit.subject import Subject

#: Where the README's commands put the packages and the bundle.
PLACE = "/opt/edgetl"
#: Machine of the target → what Docker calls it.
PLATFORMS = {"aarch64": "linux/arm64", "x86_64": "linux/amd64"}
_CACHE = "/var/cache/edgetl"
#: Nobody, by number: a host knows other names than a container.
_USER = "65534"
#: What the service may not do, and when it is started.
_CONFINED = (
    "DynamicUser=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "",
    "[Install]",
    "WantedBy=multi-user.target",
)
_READY = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready')"


def on_device(subject: Subject) -> bool:
    """Whether something besides the CPU executes the model, which a service has to be let at."""
    return subject.backend == "tensorrt" or subject.target.runtime_device in ("GPU", "NPU")


def service(subject: Subject) -> str:
    """``edgetl.service``."""
    return "\n".join(_service(subject)) + "\n"


def _service(subject: Subject) -> Iterator[str]:
    name = model_name(subject.name)
    yield "# To /etc/systemd/system, as README.md says. It answers on this machine alone, without a password."
    yield "[Unit]"
    yield f"Description=edgetl serves the model {name}"
    yield "Documentation=file:/opt/edgetl/bundle/kit/README.md"
    yield "After=network.target"
    yield ""
    yield "[Service]"
    yield "Type=exec"
    yield f"ExecStart={PLACE}/bin/edgetl serve {PLACE}/bundle --name {name} --port 8000"
    yield "# SIGTERM ends it with 0; one that comes while Python still starts, with 143."
    yield "SuccessExitStatus=143"
    yield "TimeoutStopSec=90"
    yield "Restart=on-failure"
    yield "RestartSec=5"
    yield "UMask=0077"
    yield "# Engines and kernels that a runtime keeps."
    yield "CacheDirectory=edgetl"
    yield f"Environment=XDG_CACHE_HOME={_CACHE} HOME={_CACHE} PYTHONDONTWRITEBYTECODE=1"
    yield ""
    yield "# A user of its own that can write nowhere else, and calls nothing but the network."
    if on_device(subject):
        yield "# What computes is a device beside the CPU."
        yield "PrivateDevices=no"
        yield "SupplementaryGroups=video render"
    else:
        yield "PrivateDevices=yes"
    yield from _CONFINED


def dockerfile(subject: Subject) -> str:
    """``Dockerfile``."""
    return "\n".join(_dockerfile(subject)) + "\n"


def _dockerfile(subject: Subject) -> Iterator[str]:
    tools = f"{PLACE}/bin/" if subject.jetson else ""
    place = PLATFORMS[subject.target.arch]
    yield f"# From the bundle's folder: docker build --platform {place} --file kit/Dockerfile --tag edgetl-bundle ."
    yield "# Its form is checked by a linter where edgetl is tested. It was never built."
    yield from _base(subject, tools)
    if subject.backend == "tensorrt":
        yield "ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    yield f"ENV XDG_CACHE_HOME={_CACHE} HOME={_CACHE}"
    yield f"RUN install --directory --owner={_USER} {_CACHE}"
    yield f"VOLUME {_CACHE}"
    yield f"COPY --chown={_USER} . /bundle"
    yield f"USER {_USER}"
    yield "EXPOSE 8000"
    yield f"HEALTHCHECK --start-period=120s CMD {json.dumps([f'{tools}python3', '-c', _READY])}"
    serve = [f"{tools}edgetl", "serve", "/bundle", "--name", model_name(subject.name), "--host", "0.0.0.0"]
    yield f"ENTRYPOINT {json.dumps(serve)}"


def _base(subject: Subject, tools: str) -> Iterator[str]:
    if subject.jetson:
        yield "# NVIDIA's image brings TensorRT with its Python bindings. Which tag fits, the device's JetPack decides."
        yield "ARG BASE=nvcr.io/nvidia/tensorrt:25.11-py3"
        yield "FROM ${BASE}"
        yield f"RUN python3 -m venv --system-site-packages {PLACE} \\"
        yield f" && {tools}pip install --no-cache-dir {subject.packages('serve')}"
        return
    yield "FROM python:3.12-slim-bookworm"
    if subject.target.runtime_device == "GPU":
        yield "# hadolint ignore=DL3008"
        yield "RUN apt-get update && apt-get install --yes --no-install-recommends intel-opencl-icd \\"
        yield " && rm -rf /var/lib/apt/lists/*"
    yield f"RUN pip install --no-cache-dir {subject.packages('serve')}"
