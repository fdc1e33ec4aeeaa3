"""Bundles behind HTTP: the Open Inference Protocol (KServe v2), and a file in, an answer out.

    edgetl.serve("out/rpi5", port=8000)                        blocks until SIGTERM
    app = edgetl.serving.app({"camera": "out/rpi5"})           for an ASGI server of one's own

Takes the extra ``serve`` besides what the bundle itself takes; no torch.
"""

from edgetl.serving.application import app
from edgetl.serving.server import serve

__all__ = ["app", "serve"]
