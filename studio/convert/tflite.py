"""MediaPipe's face networks out of `.tflite` files.

A `.tflite` file is a FlatBuffer: tables whose fields sit at offsets named by a small "vtable" in front of them. Only
the fields needed here are read (names and numbers: `schema.fbs` of TensorFlow Lite, version 3): operators with their
input tensors, and constant tensors in float32 or float16. Every read is bounds-checked, so a damaged file is an error
and not a wrong network.

The port is by order: convolutions and PReLUs are taken in the order in which the graph runs them, each part of a
branched network separately, and must fit the modules of the torch network one by one in kind and shape.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from studio.errors import WeightsError
from studio.networks.detector import FaceDetector
from studio.networks.iris import IrisNet
from studio.networks.mesh import FaceMesh

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")

CONV, DEPTHWISE, DEQUANTIZE, PRELU = 3, 4, 6, 54
DTYPES = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 2: np.dtype("<i4")}


class Table:
    """A FlatBuffer table at a byte position; fields by number."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        self.vtable = position - _unpack("<i", data, position)
        self.entries = (_unpack("<H", data, self.vtable) - 4) // 2

    def at(self, field: int) -> int:
        """Byte position of a field, 0 when it is absent (it then has its default)."""
        offset = _unpack("<H", self.data, self.vtable + 4 + 2 * field) if field < self.entries else 0
        return self.position + offset if offset else 0

    def number(self, field: int, form: str, default: int = 0) -> int:
        """A scalar field."""
        position = self.at(field)
        return _unpack(form, self.data, position) if position else default

    def vector(self, field: int, itemsize: int) -> tuple[int, int]:
        """Byte position of the first element and the length of a vector field, (0, 0) when absent."""
        position = self.at(field)
        if not position:
            return 0, 0
        start = position + _unpack("<I", self.data, position)
        length = _unpack("<I", self.data, start)
        if start + 4 + length * itemsize > len(self.data):
            raise WeightsError("a .tflite file must hold whole vectors, this one ends early: fetch it again")
        return start + 4, length

    def numbers(self, field: int) -> list[int]:
        """A vector of int32."""
        start, length = self.vector(field, 4)
        return list(struct.unpack_from(f"<{length}i", self.data, start)) if length else []

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, length = self.vector(field, 4)
        places = range(start, start + 4 * length, 4)
        return [Table(self.data, p + _unpack("<I", self.data, p)) for p in places]


@dataclass
class Operator:
    """One step of the graph: a builtin code and the numbers of its tensors (-1 for one that is left out)."""

    code: int
    inputs: list[int]
    outputs: list[int]


@dataclass
class Graph:
    """The first subgraph of a file: its operators in running order, its constants by tensor number, its outputs."""

    operators: list[Operator]
    constants: dict[int, np.ndarray]
    outputs: list[int]


def read(data: bytes) -> Graph:
    """Reads a `.tflite` file.

    Args:
        data: the whole file.

    Raises:
        WeightsError: it is not a `.tflite` file, is cut short, or stores constants in a way not known here.
    """
    if data[4:8] != b"TFL3":
        raise WeightsError("a .tflite file must carry the mark TFL3, this one does not: fetch it again")
    model = Table(data, _unpack("<I", data, 0))
    # Codes above 127 did not fit the first field; the later field is absent in old files. The larger one is right.
    codes = [max(code.number(0, "<b"), code.number(3, "<i")) for code in model.tables(1)]
    buffers = [buffer.vector(0, 1) for buffer in model.tables(4)]
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise WeightsError(f"a .tflite file must hold one graph, this one holds {len(subgraphs)}: take another file")
    operators = [
        Operator(_item(codes, op.number(0, "<I")), op.numbers(1), op.numbers(2)) for op in subgraphs[0].tables(3)
    ]
    constants = {}
    for i, tensor in enumerate(subgraphs[0].tables(0)):
        start, length = _item(buffers, tensor.number(2, "<I"))
        if length:
            constants[i] = _array(data[start : start + length], tensor.number(1, "<b"), tensor.numbers(0))
    for op in operators:
        if op.code == DEQUANTIZE and op.inputs[0] in constants:
            constants[op.outputs[0]] = constants[op.inputs[0]].astype(np.float32)
    return Graph(operators, constants, subgraphs[0].numbers(2))


def detector(data: bytes, variant: str) -> FaceDetector:
    """BlazeFace from `face_detection_full_range.tflite` or `face_detection_back.tflite` (variant "back")."""
    net = FaceDetector(variant)
    return _fill(net, read(data), trunk=[net.trunk], heads=[net.boxes, net.logits])


def mesh(data: bytes) -> FaceMesh:
    """The 468-point mesh from `face_landmark.tflite`."""
    net = FaceMesh()
    return _fill(net, read(data), trunk=[net.stem, net.body], heads=[net.points, net.presence])


def iris(data: bytes) -> IrisNet:
    """The iris network from `iris_landmark.tflite`."""
    net = IrisNet()
    return _fill(net, read(data), trunk=[net.stem, net.body], heads=[net.contour, net.iris])


def _fill(net: M, graph: Graph, trunk: Sequence[nn.Module], heads: Sequence[nn.Module]) -> M:
    """Copies the constants into `net`; `heads` in the order of the graph's outputs, `trunk` is what they share."""
    needed = [_ancestors(graph, output) for output in graph.outputs]
    if len(needed) != len(heads):
        raise WeightsError(
            f"this network must have {len(heads)} outputs, the file has {len(needed)}: take another file"
        )
    shared = set.intersection(*needed)
    _copy(_weights(graph, shared), trunk)
    for indices, head in zip(needed, heads, strict=True):
        _copy(_weights(graph, indices - shared), [head])
    return net.eval()


def _ancestors(graph: Graph, output: int) -> set[int]:
    """Numbers of the operators that an output tensor depends on."""
    wanted, found = {output}, set()
    for i in range(len(graph.operators) - 1, -1, -1):
        if wanted.intersection(graph.operators[i].outputs):
            found.add(i)
            wanted.update(graph.operators[i].inputs)
    return found


def _weights(graph: Graph, indices: set[int]) -> Iterator[list[Tensor]]:
    """The parameters of convolutions (weight, bias) and PReLUs (slope), in torch's layout, in running order."""
    for i in sorted(indices):
        op = graph.operators[i]
        if op.code not in (CONV, DEPTHWISE, PRELU):
            continue
        if any(k not in graph.constants for k in op.inputs[1:]):
            raise WeightsError(
                "the weights of every convolution must be stored plainly, some are not: take another file"
            )
        first, *rest = (torch.from_numpy(graph.constants[k].astype(np.float32)) for k in op.inputs[1:])
        if op.code == PRELU:
            yield [first.flatten()]
        else:  # convolution (out, h, w, in), depthwise (1, h, w, channels)
            yield [first.permute((0, 3, 1, 2) if op.code == CONV else (3, 0, 1, 2)), *rest]


def _copy(weights: Iterator[list[Tensor]], modules: Sequence[nn.Module]) -> None:
    """Puts the weights into the leaves of `modules` that have any, in order."""
    leaves = [leaf for m in modules for leaf in m.modules() if isinstance(leaf, nn.Conv2d | nn.PReLU)]
    found = list(weights)
    if len(found) != len(leaves):
        raise WeightsError(f"this part must have {len(leaves)} layers, the file has {len(found)}: take another file")
    for leaf, tensors in zip(leaves, found, strict=True):
        expected = [tuple(p.shape) for p in leaf.parameters()]
        if expected != [tuple(t.shape) for t in tensors]:
            raise WeightsError(f"a layer must have shapes {expected}, the file has {[tuple(t.shape) for t in tensors]}")
        for parameter, tensor in zip(leaf.parameters(), tensors, strict=True):
            parameter.data = tensor.contiguous().clone()


def _array(data: bytes, dtype: int, shape: list[int]) -> np.ndarray:
    """A constant tensor of the file."""
    if dtype not in DTYPES or len(data) != int(np.prod(shape)) * DTYPES[dtype].itemsize:
        raise WeightsError(f"a constant must be plain float32, float16 or int32, got type {dtype}, {len(data)} bytes")
    return np.frombuffer(data, DTYPES[dtype]).reshape(shape)


def _item(items: Sequence[T], index: int) -> T:
    """`items[index]`, or an error that says what is wrong."""
    if index >= len(items):
        raise WeightsError(f"a .tflite file must refer to its own parts, number {index} of {len(items)} is not there")
    return items[index]


def _unpack(form: str, data: bytes, position: int) -> int:
    """One little-endian number."""
    if position < 0 or position + struct.calcsize(form) > len(data):
        raise WeightsError("a .tflite file must be whole, this one ends early: fetch it again")
    return struct.unpack_from(form, data, position)[0]
