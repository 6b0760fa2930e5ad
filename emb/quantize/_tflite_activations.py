"""Runs a float .tflite on calibration images and hands out what every tensor took. Chooses no range."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize._ranges import Activations


def activations(path: Path, images: NDArray[Any], names: frozenset[str]) -> Iterator[Activations]:
    """One {tensor name: values} per image, for the tensors in `names`, in the types that they have in the file.

    images: (n, height, width, channels) values of the model's input, in its type.
    Runs the plain kernels on one thread: a delegate computes in tensors of its own, and threads may sum in any order.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        # It warns that keeping every tensor takes memory, which is what calibration needs.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = Interpreter(
            model_path=str(path),
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
    interpreter.allocate_tensors()
    input_index = interpreter.get_input_details()[0]["index"]
    wanted = [
        (tensor["name"], tensor["index"]) for tensor in interpreter.get_tensor_details() if tensor["name"] in names
    ]
    for image in images:
        interpreter.set_tensor(input_index, image[np.newaxis])
        interpreter.invoke()
        yield {name: interpreter.get_tensor(index) for name, index in wanted}
