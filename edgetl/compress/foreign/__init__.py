"""ONNX files of other tools, made into what edgetl exports itself: read, simplified, behind an input that it feeds."""

from edgetl.compress.foreign.deployable import Deployable, make_deployable, run_plainly
from edgetl.compress.foreign.reading import Foreign, read_foreign

__all__ = ["Deployable", "Foreign", "make_deployable", "read_foreign", "run_plainly"]
