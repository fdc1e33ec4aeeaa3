"""From a trained torch model to what a runtime takes: ONNX, calibration samples, recipes, quantization.

Nothing is imported here: ``export`` needs torch and ``quantize`` needs the engine that a recipe names.
"""
