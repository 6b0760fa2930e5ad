"""A model as data: tensors and operations, read from .tflite, ONNX or Keras; cost and rules are functions over it."""
