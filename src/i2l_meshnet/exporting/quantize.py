"""8-bit convolutions for the processor, by onnxruntime's own static quantization."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def quantize(source: Path, target: Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Writes an ONNX file of ours anew with the 2D convolutions in 8 bits (QDQ form), its description kept.

    Ranges of activations are those that they take for `feeds`, inputs by name. Everything else stays in 32 bits: the
    products that heatmaps and vectors come from, and the soft-argmax, where 8 bits are not enough; and the first
    convolution, which reads the picture and costs little.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Feeds(CalibrationDataReader):
        """The inputs, one by one."""

        def __init__(self) -> None:
            self._left: Iterator[Mapping[str, np.ndarray]] = iter(feeds)

        def get_next(self) -> Any:
            return next(self._left, None)

    graph = onnx.load(source).graph
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    kinds = ("Conv", "ConvTranspose")
    convolutions = [node.name for node in graph.node if node.op_type in kinds and ranks.get(node.input[1]) == 4]
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # It advises its own preprocessing, which has been done.
    try:
        quantize_static(
            source,
            target,
            Feeds(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*kinds],
            nodes_to_quantize=convolutions[1:],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.root.setLevel(level)
