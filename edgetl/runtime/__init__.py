"""What the device imports: numpy, Pillow or a tokenizer, and one inference runtime. No torch, no typer."""

from edgetl.runtime.predict import predict
from edgetl.runtime.predictor import LabelProbability, Prediction, Predictor, open_bundle
from edgetl.runtime.selftest import selftest
from edgetl.runtime.sessions import Executed, Session, open_session

__all__ = [
    "Executed",
    "LabelProbability",
    "Prediction",
    "Predictor",
    "Session",
    "open_bundle",
    "open_session",
    "predict",
    "selftest",
]
