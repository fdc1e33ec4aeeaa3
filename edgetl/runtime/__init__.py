"""What the device imports: numpy, Pillow for decoding, and one inference runtime. No torch, no typer."""

from edgetl.runtime.predict import predict, selftest
from edgetl.runtime.sessions import Executed, Session, open_session

__all__ = ["Executed", "Session", "open_session", "predict", "selftest"]
