"""Making the root folder of an emulated Arm machine from Debian packages and aarch64 wheels.

Layout of the folder, which is read by ``qemu-aarch64-static -L``:

    usr/bin/python3.X                              Debian's arm64 Python, unpacked and never configured
    usr/local/lib/python3.X/dist-packages/         wheels: numpy, pillow, runtimes, tokenizers
    proc/cpuinfo, sys/devices/system/cpu/*         what an Arm machine's kernel says: ONNX Runtime crashes on
                                                   import, and OpenVINO on compiling, without these
    edgetl-device.json                             sealed, written last: architecture, CPU, versions

Packages come from wherever this machine's own apt is configured to get them, into private state and cache folders:
neither the system's package lists nor its dpkg architectures change, and no root rights are needed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgetl.base.errors import DeviceError
from edgetl.base.extras import PROVIDERS, version
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import new_folder, read_sealed, write_sealed
from edgetl.devices.arm_kernel import write_kernel_files
from edgetl.devices.given import check_arm64, copy_given
from edgetl.devices.process import Finished, run_watched

MARKER = "edgetl-device.json"
QEMU = "qemu-aarch64-static"
SCHEMA = 1
#: command → Debian package that brings it
_TOOLS = {QEMU: "qemu-user-static", "apt-get": "apt", "dpkg-deb": "dpkg"}
#: Where an interpreter may lie: of a container image of Python's, and of a distribution.
_PYTHON_PLACES = ("usr/local/bin", "usr/bin")
_DEBIAN_PACKAGES = ("python3", "libstdc++6")


def check_tools() -> None:
    """Check that everything a root folder is made with is installed.

    Raises:
        DeviceError: something is missing; the message names the Debian package.
    """
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise DeviceError(
            f"an emulated device needs {', '.join(missing)}, not installed here",
            f"apt-get install {' '.join(missing)} (on Debian)",
        )


def create_rootfs(
    root: Path,
    *,
    cpu: str = "cortex-a76",
    modules: Sequence[str] = ("onnxruntime",),
    source: Path | None = None,
    progress: Progress = silent,
) -> Mapping[str, Any]:
    """Make an arm64 root folder, whole or not at all.

    Args:
        root: the folder to make; what stood there is replaced.
        cpu: key of :data:`edgetl.devices.arm_kernel.CPUS`.
        modules: to install besides numpy and Pillow: ``onnxruntime``, ``openvino``, ``ai_edge_litert``, ``tokenizers``.
            Versions are those installed here, where wheels exist for the device's Python, so that only the ISA differs.
        source: a root file system to start from, with a Python 3.10 or later in it; Debian's packages when None.
        progress: told of each step.

    Returns:
        the sealed marker.

    Raises:
        DeviceError: a tool, a package or a wheel is missing, or what was made does not start.
    """
    check_tools()
    task = f"creating {root.parent.name}"
    with tempfile.TemporaryDirectory(prefix="edgetl-apt-") as scratch, new_folder(root) as folder:
        if source is None:
            _unpack(_download(Path(scratch), task, progress), folder, task, progress)
        else:
            progress(task, 0, 0, f"copying {source}")
            copy_given(source, folder)
        python = _python(folder)
        packages = ["numpy", "PIL", *modules]
        progress(task, 0, 0, "wheels for " + ", ".join(PROVIDERS[module][0] for module in packages))
        _install_wheels(folder, cpu, python, packages)
        write_kernel_files(folder, cpu)
        progress(task, 0, 0, "checking that it starts")
        installed = _check(folder, cpu, packages)
        body = {"schema": SCHEMA, "arch": "aarch64", "cpu": cpu, "python": python, "packages": installed}
        write_sealed(folder / MARKER, body)
    progress(task, 1, 1, "done")
    return read_marker(root)


def read_marker(root: Path) -> Mapping[str, Any]:
    """What a finished root folder says about itself.

    Raises:
        DeviceError: missing, unfinished, altered or of another schema.
    """
    if not (root / MARKER).is_file():
        raise DeviceError(f"{root} is no finished emulated machine", f"make it again: {_again(root)}")
    marker = read_sealed(root / MARKER, DeviceError)
    if marker.get("schema") != SCHEMA:
        raise DeviceError(f"{root} was made by another version of edgetl", f"make it again: {_again(root)}")
    return marker


def _again(root: Path) -> str:
    name = root.parent.name
    return f"edgetl devices remove {name}, then edgetl devices create {name} --arch arm64"


def emulated_start(root: Path) -> list[str]:
    """The words before a program of a finished root folder's architecture that start it under the emulator."""
    return [QEMU, "-cpu", str(read_marker(root)["cpu"]), "-L", str(root)]


def emulated_python(root: Path, cpu: str, python: str) -> list[str]:
    """The command that starts the root folder's Python under the emulator."""
    folder = next((place for place in _PYTHON_PLACES if (root / place / python).exists()), _PYTHON_PLACES[-1])
    return [QEMU, "-cpu", cpu, "-L", str(root), str(root / folder / python)]


def emulated_environment(import_path: Path | None = None) -> dict[str, str]:
    """The whole environment of an emulated process: nothing that would lead it to this machine's own packages."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # numpy multiplies nothing large here, and idle threads are dear under emulation.
        "OPENBLAS_NUM_THREADS": "1",
    }
    return {**environment, **({"PYTHONPATH": str(import_path)} if import_path else {})}


def _download(scratch: Path, task: str, progress: Progress) -> list[Path]:
    for name in ("state/lists/partial", "cache/archives/partial", "log"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    settings = scratch / "apt.conf"
    settings.write_text(_APT_SETTINGS.format(scratch=scratch), encoding="utf-8")
    apt = ["apt-get", "-c", str(settings), "-o", "Debug::NoLocking=true"]
    progress(task, 0, 0, "package lists")
    updated = run_watched([*apt, "update"])
    found = 0

    def count(line: str) -> None:
        nonlocal found
        if line.startswith("Get:"):
            found += 1
            progress(task, 0, 0, f"Debian packages: {found} fetched")

    wanted = ["install", "--download-only", "--no-install-recommends", "--yes", *_DEBIAN_PACKAGES]
    fetched = run_watched([*apt, *wanted], on_line=count)
    debs = sorted((scratch / "cache/archives").glob("*.deb"))
    if fetched.status or not debs:
        problem = fetched.last_line if not updated.status else updated.last_line
        raise DeviceError(
            f"apt offers no arm64 packages of {' and '.join(_DEBIAN_PACKAGES)} here ({problem})",
            "check the network and that apt's sources carry arm64, as Debian's do",
        )
    return debs


#: ``#clear`` is a directive, not a comment: the system's hooks must not see a private apt.
_APT_SETTINGS = """\
Dir::State "{scratch}/state";
Dir::State::status "{scratch}/status";
Dir::Cache "{scratch}/cache";
Dir::Log "{scratch}/log";
APT::Architecture "arm64";
#clear APT::Architectures;
APT::Architectures {{ "arm64"; }};
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
APT::Sandbox::User "";
Acquire::Languages "none";
"""


def _unpack(debs: list[Path], folder: Path, task: str, progress: Progress) -> None:
    # Debian 13 ships files under /usr alone and leaves these links to its base-files package.
    for name in ("bin", "lib", "sbin"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(f"usr/{name}")
    for done, deb in enumerate(debs, 1):
        # Not "dpkg-deb --extract": its tar would put a folder in the place of such a link.
        listing = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
        options = ["--extract", "--keep-directory-symlink", "--no-same-owner", "--directory", str(folder)]
        unpacked = subprocess.run(
            ["tar", *options],
            stdin=listing.stdout,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
        if listing.stdout is not None:
            listing.stdout.close()
        if listing.wait() or unpacked.returncode:
            last = (unpacked.stderr.strip() or "no message").splitlines()[-1]
            raise DeviceError(f"cannot unpack {deb.name} ({last})", "free space, or try again")
        progress(task, done, len(debs), f"unpacking {deb.name.split('_')[0]}")


def _python(folder: Path) -> str:
    for place in _PYTHON_PLACES:
        for file in sorted((folder / place).glob("python3.*")):
            if re.fullmatch(r"python3\.\d+", file.name):
                check_arm64(file.resolve())
                return file.name
    raise DeviceError(
        "the root file system has no Python 3", "take one with Python, such as python:3.12-slim for arm64"
    )


def _install_wheels(folder: Path, cpu: str, python: str, modules: Sequence[str]) -> None:
    # The newest wheels that can run are those for this C library (2.36 → 36).
    program = (
        "import os, site; print(os.confstr('CS_GNU_LIBC_VERSION').split('.')[1]); print(site.getsitepackages()[0])"
    )
    asked = run_watched(
        [*emulated_python(folder, cpu, python), "-I", "-c", program], environment=emulated_environment(), folder=folder
    )
    if asked.status:
        raise DeviceError(f"the emulated machine's {python} does not work ({asked.last_line})", "try another image")
    glibc, target = asked.stdout.decode().split("\n")[:2]
    names = [PROVIDERS[module][0] for module in modules]
    pinned = [f"{PROVIDERS[m][0]}=={version(m)}" if version(m) else PROVIDERS[m][0] for m in modules]
    # Wheels of this very version may not exist for the device's Python; the newest that does is second best.
    for wanted in (pinned, names):
        done = _pip(Path(target), python, int(glibc), wanted)
        if not done.status:
            return
    if "No module named pip" in done.stderr:
        raise DeviceError("an emulated device needs pip, which this Python lacks", "python -m ensurepip")
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    raise DeviceError(
        f"no aarch64 wheels of {', '.join(names)} for {python} ({(errors or [done.last_line])[-1]})",
        "check the network and pip's package index",
    )


def _pip(target: Path, python: str, glibc: int, wanted: Sequence[str]) -> Finished:
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(glibc, 16, -1)] + ["manylinux2014_aarch64"]
    platforms = [argument for tag in tags for argument in ("--platform", tag)]
    chosen = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python.removeprefix("python")]
    quiet = [
        "--upgrade",
        "--no-compile",
        "--no-input",
        "--quiet",
        "--disable-pip-version-check",
        "--root-user-action=ignore",
    ]
    command = [sys.executable, "-m", "pip", "install", "--target", str(target), *platforms, *chosen, *quiet, *wanted]
    return run_watched(command)


def _check(folder: Path, cpu: str, modules: Sequence[str]) -> dict[str, str]:
    """Import every module under the emulator; returns module → version."""
    program = "import importlib, sys\nfor m in sys.argv[1:]: print(m, importlib.import_module(m).__version__)"
    command = [*emulated_python(folder, cpu, _python(folder)), "-I", "-c", program, *modules]
    done = run_watched(command, environment=emulated_environment(), folder=folder)
    if done.status:
        raise DeviceError(f"the emulated machine does not work ({done.last_line})", "try another version of qemu")
    return dict(line.split(maxsplit=1) for line in done.stdout.decode().splitlines())
