"""What the graph in a stranger's file may be before ONNX Runtime or OpenVINO is given it.

Both look after the places that external weights are read from, in versions of today. Neither bounds what a graph may
ask of memory and time: a few hundred bytes of it can repeat a step for ever or call for terabytes.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

from i2l_meshnet.runtimes import onnxruntime

MOST_MEMORY = 4 * 10**9
"""Bytes that all graphs which ONNX Runtime computes in this process may have at once."""
MOST_TENSOR = 10**9
"""Bytes of one tensor of a graph that OpenVINO computes, for one crop."""
MOST_FIELDS = 1_000_000
"""Of the messages in an ONNX file that are looked into."""
DOMAINS = (b"", b"ai.onnx")
"""Sets of operations: ONNX' own."""
_WITHIN = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
"""Messages of ONNX' protocol, and which of their fields hold messages that are looked into."""
_REFUSED = {
    ("model", 20): "it holds graphs for training",
    ("model", 25): "it defines functions of its own",
    ("attribute", 6): "it holds graphs within its graph",
    ("attribute", 11): "it holds graphs within its graph",
    ("tensor", 13): "weights of it are in another file",
}
"""Fields that no network of ours has. Functions within functions multiply; graphs within graphs are loops."""
_LOOPS = {"Loop", "TensorIterator", "If"}
"""OpenVINO's operations that hold graphs."""


def require_plain_onnx(data: bytes) -> None:
    """Raises ValueError unless an ONNX file is one graph of ONNX' own operations, without loops, its weights in it."""
    _look_into("model", memoryview(data), itertools.count())


def _look_into(kind: str, message: memoryview, seen: Iterator[int]) -> None:
    for number, content in _fields(message):
        if next(seen) > MOST_FIELDS:
            raise ValueError("it is made of too many parts")
        if (kind, number) in _REFUSED:
            raise ValueError(_REFUSED[kind, number])
        if (kind, number) == ("node", 7) and bytes(content) not in DOMAINS:
            raise ValueError(f"it uses operations of {bytes(content[:80]).decode(errors='replace')!r}")
        if number in _WITHIN.get(kind, {}):
            _look_into(_WITHIN[kind][number], content, seen)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Numbers and contents of a message's fields, in the encoding of Protocol Buffers; of plain numbers nothing."""
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        length = {1: 8, 5: 4}.get(tag & 7, 0)
        if tag & 7 == 0:
            _, place = _number(message, place)
        elif tag & 7 == 2:
            length, place = _number(message, place)
        elif not length:
            raise ValueError("it is no ONNX file")
        if place + length > len(message):
            raise ValueError("it is cut off, or no ONNX file")
        yield tag >> 3, message[place : place + length] if tag & 7 == 2 else message[:0]
        place += length


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it."""
    value = 0
    for index, byte in enumerate(message[place : place + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("it is cut off, or no ONNX file")


@functools.cache
def share_memory() -> None:
    """Makes the memory that sessions with the setting `session.use_env_allocators` share, once in a process."""
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg({"max_mem": MOST_MEMORY}))


def is_out_of_memory(error: Exception) -> bool:
    """Whether ONNX Runtime found no more of the memory that its sessions share; it says so in words."""
    return "smaller than requested bytes" in str(error) or "Failed to allocate memory" in str(error)


def require_bounded_openvino(model: Any, shapes: dict[str, list[int]]) -> None:
    """Raises ValueError unless an OpenVINO model has no loops and no giant tensors. shapes: of its inputs."""
    kinds = {operation.get_type_name() for operation in model.get_ordered_ops()}
    if kinds & _LOOPS:
        raise ValueError("it holds graphs within its graph")
    one = model.clone()
    one.reshape({name: shape for name, shape in shapes.items() if any(name in put.names for put in one.inputs)})
    for operation in one.get_ordered_ops():
        for output in operation.outputs():
            shape = output.get_partial_shape()
            if shape.is_dynamic:
                raise ValueError(f"the size of {operation.get_friendly_name()!r} is not known before it is computed")
            if math.prod(shape.to_shape()) * max(output.get_element_type().size, 1) > MOST_TENSOR:
                raise ValueError(f"{operation.get_friendly_name()!r} in it is larger than {MOST_TENSOR / 1e9:g} GB")
