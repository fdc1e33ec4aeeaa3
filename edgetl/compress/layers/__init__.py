"""Layer by layer: how a compressed model executes each weighted layer, and what that does to its output.

Nothing is imported here: reading an OpenVINO IR needs OpenVINO, measuring needs ONNX Runtime.
"""
