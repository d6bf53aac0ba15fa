"""Checks of untrusted graphs before ONNX Runtime or OpenVINO runs them.

Current versions of both restrict the files from which external weights are read. Neither limits the memory and time of
a graph: a few hundred bytes can contain an endless loop or allocate terabytes.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

from i2l_meshnet.runtimes import onnxruntime

MAX_MEMORY = 4 * 10**9
"""Maximum bytes that all graphs of ONNX Runtime in this process may allocate together."""
MAX_TENSOR_BYTES = 10**9
"""Maximum bytes of one tensor of an OpenVINO graph, for one crop."""
MAX_FIELDS = 1_000_000
"""Maximum number of fields of all checked messages of an ONNX file."""
DOMAINS = (b"", b"ai.onnx")
"""Allowed operator sets: those of ONNX itself."""
_WITHIN = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
"""Message of the ONNX format → field number → message in that field, which is checked too."""
_REFUSED = {
    ("model", 20): "it contains graphs for training",
    ("model", 25): "it defines functions",
    ("attribute", 6): "it contains graphs in its graph",
    ("attribute", 11): "it contains graphs in its graph",
    ("tensor", 13): "some of its weights are in another file",
}
"""Fields that no exported network has. Nested functions multiply the work; nested graphs are loops."""
_LOOPS = {"Loop", "TensorIterator", "If"}
"""OpenVINO's operations that contain graphs."""


def require_plain_onnx(data: bytes) -> None:
    """Raise ValueError unless an ONNX file is one graph of ONNX operators without loops, with its weights inside."""
    _check_message("model", memoryview(data), itertools.count())


def _check_message(kind: str, message: memoryview, seen: Iterator[int]) -> None:
    for number, content in _fields(message):
        if next(seen) > MAX_FIELDS:
            raise ValueError("it has too many parts")
        if (kind, number) in _REFUSED:
            raise ValueError(_REFUSED[kind, number])
        if (kind, number) == ("node", 7) and bytes(content) not in DOMAINS:
            raise ValueError(f"it uses operators of {bytes(content[:80]).decode(errors='replace')!r}")
        if number in _WITHIN.get(kind, {}):
            _check_message(_WITHIN[kind][number], content, seen)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field of a message of Protocol Buffers. The content of plain numbers is empty."""
    position = 0
    while position < len(message):
        tag, position = _number(message, position)
        length = {1: 8, 5: 4}.get(tag & 7, 0)
        if tag & 7 == 0:
            _, position = _number(message, position)
        elif tag & 7 == 2:
            length, position = _number(message, position)
        elif not length:
            raise ValueError("it is not an ONNX file")
        if position + length > len(message):
            raise ValueError("it is truncated or not an ONNX file")
        yield tag >> 3, message[position : position + length] if tag & 7 == 2 else message[:0]
        position += length


def _number(message: memoryview, position: int) -> tuple[int, int]:
    """A number of variable length, and the position after it."""
    value = 0
    for index, byte in enumerate(message[position : position + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("it is truncated or not an ONNX file")


@functools.cache
def share_memory() -> None:
    """Create the memory shared by sessions with the setting `session.use_env_allocators`, once per process."""
    location = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(location, onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY}))


def is_onnx_out_of_memory(error: Exception) -> bool:
    """Whether the shared memory of ONNX Runtime is exhausted. The error message is the only sign."""
    return "smaller than requested bytes" in str(error) or "Failed to allocate memory" in str(error)


def require_bounded_openvino(model: Any, shapes: dict[str, list[int]]) -> None:
    """Raise ValueError if an OpenVINO model has loops or giant tensors. shapes: shapes of its inputs."""
    kinds = {operation.get_type_name() for operation in model.get_ordered_ops()}
    if kinds & _LOOPS:
        raise ValueError("it contains graphs in its graph")
    one = model.clone()
    one.reshape({name: shape for name, shape in shapes.items() if any(name in put.names for put in one.inputs)})
    for operation in one.get_ordered_ops():
        for output in operation.outputs():
            shape = output.get_partial_shape()
            if shape.is_dynamic:
                raise ValueError(f"the size of {operation.get_friendly_name()!r} depends on the input")
            if math.prod(shape.to_shape()) * max(output.get_element_type().size, 1) > MAX_TENSOR_BYTES:
                limit = f"{MAX_TENSOR_BYTES / 1e9:g} GB"
                raise ValueError(f"{operation.get_friendly_name()!r} in it is larger than {limit}")
