"""A GPU that is none: a CUDA driver in C and a ``tensorrt`` in Python, which enforce what the real ones do.

Answers are real: an engine holds its ONNX model, and ONNX Runtime computes it.
"""
