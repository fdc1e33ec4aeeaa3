"""``README.md`` of a kit: from this bundle to its first answer on its target, in C and in Python, and beyond."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from edgetl import __version__
from edgetl.base.wording import count, enumerated
from edgetl.inputs import Input, Preprocess, Tensors, Text
from edgetl.reporting.kit.hosting import PLACE, PLATFORMS, on_device
from edgetl.reporting.kit.programs import source
from edgetl.reporting.kit.quoting import model_name, shell_word
from edgetl.reporting.kit.runtimes import IN_C, CRuntime
from edgetl.reporting.kit.subject import LABELS, Subject
from edgetl.reporting.papers.text import plain

#: Most names of classes that the page lists.
_LISTED = 50
#: Debian's packages that compile the runner.
_BUILD = "cmake g++ libjpeg-dev libpng-dev libssl-dev nlohmann-json3-dev python3-venv"
_CAMERA = "v4l2src ! videoconvert ! video/x-raw,format=RGB ! appsink name=frames max-buffers=1 drop=true"
_GSTREAMER = (
    "`gstreamer.c` takes the frames of a pipeline from its `appsink`; it is built with the examples where "
    "GStreamer's headers are. `videoconvert` turns frames to RGB, and the runner resizes them as pictures were in "
    "training: do not let GStreamer resize them. Without a pipeline it shows the frames of `videotestsrc`."
)
_DEEPSTREAM = (
    "**Not certified for DeepStream**, because its element `nvinfer` prepares frames itself: it scales them with its "
    "own filters, not with the one that training used, and hands the network float32 values, by default plane by "
    "plane (NCHW). This network takes the uint8 pixels that preprocess.json describes (NHWC) and normalises them "
    "inside. A certificate of this bundle says nothing of what `nvinfer` would feed it. This was read in its "
    "documentation, not tried on a device."
)
_JETPACK = (
    "TensorRT's Python bindings are JetPack's (`python3-libnvinfer`), for the system's own Python. JetPack 6 has "
    "Python 3.10, for which edgetl cannot be installed: there, `edgetl deploy` and `edgetl predict --device` from "
    "another machine bring what the device needs. On JetPack 7, which has Python 3.12:"
)
_SERVICE = (
    "`edgetl.service` starts `edgetl serve` with the system, as a user of its own that can write nothing but its "
    "cache. It answers on 127.0.0.1:8000; there is no password and no TLS."
)


def readme(subject: Subject, examples: Mapping[str, str]) -> str:
    """The page, each paragraph on one line.

    Args:
        subject: the bundle.
        examples: the programs beside it, by name; none where C does not serve it.
    """
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_lines(subject, examples))) + "\n"


def _lines(subject: Subject, examples: Mapping[str, str]) -> Iterator[str]:
    name = plain(subject.name)
    yield f"# {name} on {plain(subject.target.title)}"
    yield ""
    yield (
        f"Commands are run in the folder that holds the bundle, which is called {name} here. Build nothing inside it: "
        "a signed bundle is refused with files that nobody signed."
    )
    yield from _facts(subject)
    yield from _in_c(subject, examples)
    yield from _in_python(subject)
    yield from _as_service(subject)
    yield from _as_container(subject)
    if "gstreamer.c" in examples:
        yield from _gstreamer(subject)
        yield from _ros()
    if subject.jetson:
        yield from _part("DeepStream")
        yield _DEEPSTREAM
    yield ""
    yield (
        f"Written by edgetl {__version__} with the bundle. What was measured of it stands in MODEL_CARD.md and "
        "certificate.json, where it was certified."
    )


def _part(title: str) -> Iterator[str]:
    yield from ("", f"## {title}", "")


def _block(language: str, text: str | Sequence[str]) -> Iterator[str]:
    lines = text.rstrip("\n").split("\n") if isinstance(text, str) else text
    yield from ("", f"```{language}", *lines, "```", "")


def _facts(subject: Subject) -> Iterator[str]:
    target, made = subject.target, subject.made
    rows = {
        "target": f"{target.name}: {target.title} ({target.arch})",
        "task": f"{subject.task}: {subject.does.about}",
        "classes": f"{count(len(subject.classes))}: {enumerated(subject.classes, _LISTED)}" if subject.classes else "",
        "input": _input(subject.definition),
        "runtime": f"{subject.runtime}; {made} made it" if made else subject.runtime,
        "precision": subject.precision,
    }
    yield ""
    yield "| what | of this bundle |"
    yield "| --- | --- |"
    yield from (f"| {name} | {plain(value)} |" for name, value in rows.items() if value)
    if target.notes:
        yield ""
        yield from (f"- {plain(note)}" for note in target.notes)


def _input(definition: Input) -> str:
    if isinstance(definition, Preprocess):
        network = f"{definition.height}x{definition.width} {definition.channels}"
        return f"a picture of any size, which becomes {network} ({definition.mode}, {definition.interpolation})"
    if isinstance(definition, Tensors):
        shapes = (f"{spec.name} ({'x'.join(map(str, spec.shape))})" for spec in definition.arrays)
        return f"arrays of float32 as they were measured: {', '.join(shapes)}"
    return f"{definition.kind}, at most {definition.length} tokens" if isinstance(definition, Text) else definition.kind


def _in_c(subject: Subject, examples: Mapping[str, str]) -> Iterator[str]:
    yield from _part("In C and C++")
    if not examples:
        yield f"Not in C: {subject.not_in_c}. Python, below, is the way."
        return
    runtime = IN_C[subject.backend]
    yield (
        f"The runner's sources are in `runner/`, under the Apache licence, version 2.0. {subject.runtime} is opened "
        "while running, never linked. From here to the first answer:"
    )
    yield from _block("sh", list(_commands(subject, runtime)))
    if on_device(subject):
        yield f"The driver of the {subject.target.runtime_device or 'GPU'} is the system's."
    yield (
        f"{runtime.remark} `edgetl-run --self-test` runs the bundle's golden vectors, and says whether this machine "
        "answers as expected."
    )
    if isinstance(subject.definition, Tensors):
        yield ""
        yield "The program reads each array from a file of its own, which Python writes from an `.npz` file:"
        yield from _block("python", _separate(subject.definition))
    yield ""
    yield "`example.c` is this program, and `example.cpp` the same in C++:"
    yield from _block("c", examples["example.c"])
    yield from _block("cpp", examples["example.cpp"])
    yield "`runner/README.md` tells of signatures, limits, timings, and of a library that is installed for all bundles."


def _commands(subject: Subject, runtime: CRuntime) -> Iterator[str]:
    bundle, kit = shell_word(subject.name), _kit(subject)
    yield f"sudo apt-get install --yes {_BUILD}"
    if runtime.package is not None:
        yield "python3 -m venv runtime"
        package = shell_word(runtime.package) if runtime.package else subject.pinned()
        yield f"runtime/bin/pip install --no-deps {package}"
    yield from (command.replace("KIT", kit) for command in runtime.headers)
    yield " ".join(["cmake", "-S", kit, "-B", "build", *runtime.options])
    yield "cmake --build build"
    yield f"build/runner/edgetl-run --self-test --library {runtime.library} {bundle}"
    yield f"build/example {bundle} {_given(subject)} {runtime.library}"


def _kit(subject: Subject) -> str:
    return shell_word(f"{subject.name}/kit")


def _given(subject: Subject) -> str:
    """The files that the example takes."""
    if isinstance(subject.definition, Tensors):
        return " ".join(f"{number}.f32" for number in range(len(subject.definition.arrays)))
    return subject.sample


def _separate(definition: Tensors) -> list[str]:
    listed = ", ".join(ascii(spec.name) for spec in definition.arrays)
    return [
        "import numpy",
        "",
        'sample = numpy.load("sample.npz")',
        f"for number, name in enumerate([{listed}]):",
        '    sample[name].astype("<f4").tofile(f"{number}.f32")',
    ]


def _venv(subject: Subject) -> str:
    """Python's command for an environment, in which the system's bindings of TensorRT are seen on a Jetson."""
    return "python3 -m venv --system-site-packages" if subject.jetson else "python3 -m venv"


def _in_python(subject: Subject) -> Iterator[str]:
    yield from _part("In Python")
    yield _JETPACK if subject.jetson else "No torch is installed."
    commands = [
        f"{_venv(subject)} edgetl",
        f"edgetl/bin/pip install {subject.packages()}",
        f"edgetl/bin/edgetl predict {shell_word(subject.name)} {subject.sample}",
    ]
    yield from _block("sh", commands)
    yield "In a program, with that environment:"
    # A text is given as it is: a name of a file would be judged for a text.
    given = "What it is to judge." if isinstance(subject.definition, Text) else subject.sample
    found = ".tasks" if subject.does.parts else f".{LABELS[kind]}" if (kind := subject.does.labels) in LABELS else ""
    program = [
        "import edgetl",
        "",
        f"bundle = edgetl.load_bundle({subject.name!a})",
        f'print(bundle.predict("{given}"){found})',
    ]
    yield from _block("python", program)


def _as_service(subject: Subject) -> Iterator[str]:
    yield from _part("As a service")
    yield _SERVICE
    commands = [
        f"sudo {_venv(subject)} {PLACE}",
        f"sudo {PLACE}/bin/pip install {subject.packages('serve')}",
        f"sudo cp -r {shell_word(subject.name)} {PLACE}/bundle",
        f"sudo chmod -R a+rX {PLACE}/bundle",
        f"sudo cp {_kit(subject)}/edgetl.service /etc/systemd/system/",
        "sudo systemctl enable --now edgetl",
        f"curl --data-binary @{subject.sample} http://127.0.0.1:8000/v2/models/{model_name(subject.name)}/predict",
    ]
    yield from _block("sh", commands)


def _as_container(subject: Subject) -> Iterator[str]:
    yield from _part("In a container")
    place, device = PLATFORMS[subject.target.arch], subject.target.runtime_device
    driver = " The NPU's driver is not in it." if device == "NPU" else ""
    yield f"`Dockerfile` does the same for {place}. It was linted and never built.{driver}"
    found = {"GPU": "/dev/dri/renderD128", "NPU": "/dev/accel/accel0"}.get(device)
    given = f'--device {found} --group-add "$(stat -c %g {found})" ' if found else ""
    if subject.backend == "tensorrt":
        given = "--runtime nvidia " if subject.jetson else "--gpus all "
    build = f"--file {_kit(subject)}/Dockerfile --tag edgetl-bundle {shell_word(subject.name)}"
    commands = [
        f"docker build --platform {place} {build}",
        f"docker run --rm --publish 127.0.0.1:8000:8000 {given}edgetl-bundle",
    ]
    yield from _block("sh", commands)


def _gstreamer(subject: Subject) -> Iterator[str]:
    yield from _part("GStreamer")
    yield _GSTREAMER
    runtime, bundle = IN_C[subject.backend], shell_word(subject.name)
    start = f"build/gstreamer {bundle} {runtime.library}"
    plugins = "gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
    commands = [
        f"sudo apt-get install --yes pkg-config libgstreamer-plugins-base1.0-dev {plugins}",
        " ".join(["cmake", "-S", _kit(subject), "-B", "build", *runtime.options]),
        "cmake --build build",
        start,
        f"{start} '{_CAMERA}'",
    ]
    yield from _block("sh", commands)


def _ros() -> Iterator[str]:
    yield from _part("ROS 2")
    yield "In a node's `CMakeLists.txt`, with the kit's folder `runner` copied into the package:"
    lines = ["add_subdirectory(runner EXCLUDE_FROM_ALL)", "target_link_libraries(node edgetl::static)"]
    yield from _block("cmake", lines)
    yield (
        "In its source, with one model for each thread that answers. This was compiled against a message of ROS's "
        "form, without ROS itself:"
    )
    yield from _block("cpp", source("ros.cpp"))
