"""Silence around chatty libraries: standard output belongs to the command's own result."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

#: Loggers of exporters and quantizers that report their own progress.
_LOGGERS = ("nncf", "torch.onnx", "torch.export", "torch._export", "onnxscript", "onnx_ir", "onnxruntime", "root")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what libraries print, warn or log below an error, and keep NNCF from reporting usage to its maker."""
    # NNCF sends events over the network unless this is set before it is imported.
    os.environ.setdefault("NNCF_CI", "1")
    loggers = [logging.getLogger() if name == "root" else logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
