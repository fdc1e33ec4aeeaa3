"""Windows and macOS: what POSIX alone has stays in named places; without it the lists, the test and the report work.

Emulated on this system: modules and functions that Windows lacks are gone, ``sys.platform`` says ``win32``, and
``msvcrt`` locks bytes as it does there. ``os.name`` stays, because ``pathlib`` would make paths that nothing opens.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.test_architecture import ROOT, modules

POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt", "spwd", "nis", "posix"}
#: Of ``os`` and ``signal``, what Windows has not.
POSIX_NAMES = {
    "os": {
        *("fork", "forkpty", "killpg", "setsid", "setpgid", "getpgid", "getuid", "geteuid", "getgid", "getegid"),
        *("sysconf", "getloadavg", "sched_getaffinity", "sched_setaffinity", "nice", "uname", "wait", "wait4", "chown"),
        *("statvfs", "fchmod", "fchown", "mkfifo", "register_at_fork", "pread", "posix_fadvise", "O_DIRECTORY"),
        *("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "set_blocking", "getgroups", "initgroups", "WNOHANG"),
    },
    "signal": {
        *("SIGKILL", "SIGHUP", "SIGALRM", "SIGBUS", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGSTOP", "SIGCONT"),
        *("alarm", "setitimer", "pthread_sigmask", "pthread_kill", "sigwait", "siginterrupt", "pause"),
    },
}
#: Where such a name stands behind a look whether it is there.
PLACES = {
    "edgetl.base.lock": {"O_DIRECTORY"},
    "edgetl.cli.endings": {"register_at_fork"},
    "edgetl.devices.process": {"killpg", "SIGKILL"},
    "edgetl.inputs.pictures": {"register_at_fork"},
    "edgetl.runtime.__main__": {"setpgid", "alarm", "killpg", "SIGKILL"},
    "edgetl.runtime.sensors": {"getloadavg", "sysconf"},
    "edgetl.transfer.launch": {"set_blocking", "pthread_sigmask"},
}
#: Where a path relative to another is no name that a file holds.
SHOWN = {"edgetl.base.names", "edgetl.devices.given", "edgetl.runtime.inventory"}


TREES = {module: ast.parse(file.read_text(encoding="utf-8")) for module, file in modules().items()}


def test_what_only_posix_has_stands_in_named_places() -> None:
    wrong = []
    for module, tree in TREES.items():
        inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in inside:
                names = (
                    [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                )
                wrong += [f"{module} imports {name} at its top" for name in POSIX_MODULES.intersection(names)]
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                posix = node.attr in POSIX_NAMES.get(node.value.id, ())
                if posix and node.attr not in PLACES.get(module, ()):
                    wrong.append(f"{module} takes {node.value.id}.{node.attr} for granted")
    assert not wrong, "\n".join(wrong)


def test_names_in_files_have_forward_slashes() -> None:
    """A path relative to a folder becomes a name by ``as_posix``: ``str`` writes backslashes on Windows."""
    wrong = []
    for module in set(TREES) - SHOWN:
        calls = [n for n in ast.walk(TREES[module]) if _called(n) == "relative_to"]
        named = {id(n.value) for n in ast.walk(TREES[module]) if isinstance(n, ast.Attribute) and n.attr == "as_posix"}
        wrong += [f"{module}:{node.lineno}" for node in calls if id(node) not in named]  # type: ignore[attr-defined]
    assert not wrong, "\n".join(wrong)


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def test_text_files_say_their_encoding() -> None:
    """Without one, a file is written in whatever the locale of the day is, and read in that of the next."""
    wrong = [
        f"{module}:{node.lineno}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _in_text(node) and "encoding" not in {k.arg for k in node.keywords}
    ]
    assert not wrong, "\n".join(wrong)


def _in_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text, and its positional arguments say no encoding."""
    name, method = _called(call), isinstance(call.func, ast.Attribute)
    if name in ("read_text", "write_text") and method:
        return len(call.args) <= (name == "write_text")
    if name in ("open", "fdopen"):
        place = 0 if name == "open" and method else 1
        mode = call.args[place].value if len(call.args) > place and isinstance(call.args[place], ast.Constant) else "b"
        return isinstance(mode, str) and bool(re.fullmatch("[rwax+t]+", mode))
    return name in ("run", "Popen") and bool({"text", "universal_newlines"} & {k.arg for k in call.keywords})


EMULATED = """
import fcntl, json, os, signal, sys, types
# What stands above edgetl is there already: it has a Windows of its own.
import sysconfig
import asyncio, ctypes, multiprocessing, platform, pathlib, shutil, subprocess, tempfile, zipfile
import jinja2, numpy.random, onnxruntime, PIL.Image, rich.console, rich.progress, tomlkit, typer.testing
import prometheus_client, starlette.applications, uvicorn.protocols.http.httptools_impl

sysconfig.get_config_vars()
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK, msvcrt.LK_UNLCK = 2, 0

def locking(handle, mode, size):
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None

msvcrt.locking = locking
names, posix_modules = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for module, gone in names.items():
    for name in gone:
        if hasattr(sys.modules[module], name) and name != "set_blocking":
            delattr(sys.modules[module], name)
for module in posix_modules:
    if module != "posix":
        sys.modules[module] = None
# Whoever looks at sys.platform while it is loaded cannot be emulated: this is a core installation.
for module in ("torch", "torchvision", "timm", "sklearn", "onnx", "openvino", "nncf", "ai_edge_litert"):
    sys.modules[module] = None
sys.modules["msvcrt"] = msvcrt
sys.platform = "win32"
# The system opens no folder as a file.
opened = os.open
os.open = lambda path, *a, **k: opened(path, *a, **k) if not os.path.isdir(path) else (_ for _ in ()).throw(
    PermissionError(13, "Permission denied", str(path)))
"""
WORK = """
import edgetl
from pathlib import Path
from edgetl.base.errors import EdgetlError
from edgetl.base.lock import exclusive
from edgetl.cli import main, run

bundle, out = Path(sys.argv[3]), Path(sys.argv[4])
training = {"advise", "find_rate", "finetune", "rank", "repeat", "retention", "shift", "soup", "staged"}
for name in set(edgetl.__all__) - training:
    getattr(edgetl, name)
with exclusive(out, "training"):
    try:
        with exclusive(out, "training"):
            raise AssertionError("held twice")
    except EdgetlError as error:
        assert "another training is writing" in str(error), error
assert not out.exists()
assert edgetl.verify(reference=[0, 1] * 500, deployed=[0, 1] * 500, labels=[0, 1] * 500).verdict == "pass"
for words in (["doctor"], ["targets"], ["devices"], ["backbones"], ["verify", str(bundle)]):
    assert run([*words, "--json"]) in (0, 4), words
assert edgetl.check(bundle) is None
assert edgetl.report(bundle, out.parent / "page.html").stat().st_size > 10_000
edgetl.add_device("board", "ssh://me@board")
edgetl.remove_device("board")
try:
    main(["verify", "nowhere"])
except SystemExit as left:
    assert left.code == 2
print("whole", file=sys.__stderr__)
"""


def test_it_works_without_what_posix_alone_has(tmp_path: Path) -> None:
    bundle = shutil.copytree(ROOT / "tests" / "golden" / "bundle", tmp_path / "bundle")
    names = json.dumps({module: sorted(gone) for module, gone in POSIX_NAMES.items()})
    arguments = [names, json.dumps(sorted(POSIX_MODULES)), str(bundle), str(tmp_path / "held")]
    done = subprocess.run(
        [sys.executable, "-c", EMULATED + WORK, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "EDGETL_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "whole" in done.stderr
    assert "Traceback" not in done.stderr
