"""ArcFace out of an `.onnx` file, by the package `onnx` (an extra).

The file is a graph of nodes, each named by what it gives. The graph is followed edge by edge as the torch network runs:
every node must be of the kind that the network has there, with its settings and shapes, and none may be left over.
A normalization behind a convolution or a matrix, which some exporters keep, becomes part of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from studio.errors import InputError, WeightsError
from studio.networks.arcface import ArcFaceNet

IDLE = ("Identity", "Dropout")  # give what they get, in use
SHAPES = ("Constant", "Shape", "Gather", "Unsqueeze", "Concat")  # compute the shape for a Reshape; hold no weights
EPSILON = 1e-5  # of a normalization that names none


@dataclass
class Node:
    """One operation: what it reads, what it gives and how it is set."""

    kind: str
    inputs: list[str]
    output: str
    settings: dict[str, Any]


class Graph:
    """The nodes of a file, and its numbers by name; a node is used up when it is followed.

    Args:
        file: the whole file.

    Raises:
        InputError: the package `onnx` is not installed.
        WeightsError: not such a file.
    """

    def __init__(self, file: Path) -> None:
        if importlib.util.find_spec("onnx") is None:
            raise InputError(f"{file.name} needs the extra `onnx`, which is not installed: pip install 'onnx>=1.17,<2'")
        import onnx

        self.file = file
        try:
            # Numbers in other files, which a model may name, are not looked for.
            graph = onnx.load_model(file, load_external_data=False).graph
            self.numbers = {one.name: numbers(onnx.numpy_helper.to_array(one)) for one in graph.initializer}
            nodes = [
                Node(
                    one.op_type,
                    [name for name in one.input if name],
                    one.output[0],
                    {item.name: onnx.helper.get_attribute_value(item) for item in one.attribute},
                )
                for one in graph.node
            ]
            for node in nodes:
                if node.kind == "Constant" and "value" in node.settings:
                    self.numbers[node.output] = numbers(onnx.numpy_helper.to_array(node.settings["value"]))
        except Exception as error:  # protobuf's DecodeError, and what damaged fields raise in onnx
            said = str(error).strip().split("\n")[0][:120]
            raise WeightsError(f"{file} must be an ONNX file ({said}): fetch it again") from error
        inputs = [one.name for one in graph.input if one.name not in self.numbers]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise WeightsError(
                f"{file} must have one input and one output, it has {len(inputs)} and {len(graph.output)}: use another"
            )
        self.input = inputs[0]
        self.nodes = without_idle(nodes)
        # What does nothing may stand at the end, too.
        ends = {node.output: node.inputs[0] for node in nodes if node.kind in IDLE}
        self.output = graph.output[0].name
        while self.output in ends:
            self.output = ends[self.output]

    def follow(self, name: str, kind: str) -> Node:
        """Use up and return the node of a kind that reads `name`, in its first place where the order matters.

        Raises:
            WeightsError: there is none.
        """
        readers = [node for node in self.nodes if name in (node.inputs if node.kind == "Add" else node.inputs[:1])]
        found = next((node for node in readers if node.kind == kind), None)
        if found is None:
            kinds = ", ".join(node.kind for node in readers) or "nothing"
            raise WeightsError(f"{self.file} must have {kind} after {name}, it has {kinds}: use the published file")
        self.nodes.remove(found)
        return found

    def only(self, name: str, kind: str) -> Node | None:
        """Use up and return the one node that reads `name`, if it is of this kind; else None."""
        kinds = [node.kind for node in self.nodes if name in node.inputs]
        return self.follow(name, kind) if kinds == [kind] else None

    def tensors(self, node: Node) -> list[Tensor]:
        """The numbers that a node reads behind its first input."""
        lacking = [name for name in node.inputs[1:] if name not in self.numbers]
        if lacking or len(node.inputs) < 2:
            raise WeightsError(
                f"{self.file} must hold the numbers {', '.join(lacking)} of {node.kind}: use another file"
            )
        return [self.numbers[name] for name in node.inputs[1:]]

    def check(self, node: Node, **wanted: Any) -> None:
        """Refuse a node with other settings: name = (what it is where the node does not name it, what is wanted)."""
        for name, (default, value) in wanted.items():
            if (found := node.settings.get(name, default)) != value:
                raise WeightsError(
                    f"{name} of {node.kind} {node.output} in {self.file} must be {value}, got {found}: use another file"
                )


def without_idle(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, in running order, without those that do nothing and those that compute shapes."""
    same: dict[str, str] = {}  # what does nothing gives -> what it reads
    for node in nodes:
        node.inputs = [same.get(name, name) for name in node.inputs]
        if node.kind in IDLE:
            same[node.output] = node.inputs[0]
    return [node for node in nodes if node.kind not in (*IDLE, *SHAPES)]


def numbers(array: Any) -> Tensor:
    """A numpy array as a tensor, floats as float32."""
    tensor = torch.from_numpy(array.copy())
    return tensor.float() if tensor.is_floating_point() else tensor


def arcface(file: Path, **options: Any) -> ArcFaceNet:
    """ArcFace from `arcface.onnx`.

    Args:
        file: the whole file.
        options: of the network, in place of the published ones.

    Raises:
        InputError: the package `onnx` is not installed.
        WeightsError: not such a file, or one of another network.
    """
    graph, net = Graph(file), ArcFaceNet(**options)
    with torch.no_grad():
        x = activation(graph, convolution(graph, graph.input, net.stem), net.act)
        for block in (block for stage in net.stages for block in stage):
            y = activation(graph, convolution(graph, norm(graph, x, block.norm), block.conv1), block.act)
            y = convolution(graph, y, block.conv2)
            x = add(graph, y, x if block.skip is None else convolution(graph, x, block.skip))
        x = matrix(graph, flat(graph, norm(graph, x, net.norm)), net.embed)
    if x != graph.output or graph.nodes:
        left = ", ".join(node.kind for node in graph.nodes[:3]) or "nothing"
        raise WeightsError(f"{file} must end with the vector, and goes on with {left}: use the published file")
    return net.eval()


def convolution(graph: Graph, x: str, module: nn.Conv2d) -> str:
    """Fill a convolution; returns the name of what it gives, like those below."""
    node = graph.follow(x, "Conv")
    pads = [*module.padding, *module.padding]
    graph.check(node, group=(1, 1), dilations=([1, 1], [1, 1]), auto_pad=(b"NOTSET", b"NOTSET"))
    graph.check(node, strides=([1, 1], list(module.stride)), pads=([0] * 4, pads))
    weight, *bias = graph.tensors(node)
    return scaled(graph, node.output, module, weight, bias)


def matrix(graph: Graph, x: str, module: nn.Linear) -> str:
    """Fill a matrix."""
    node = graph.follow(x, "Gemm")
    graph.check(node, alpha=(1.0, 1.0), beta=(1.0, 1.0), transA=(0, 0))
    weight, *bias = graph.tensors(node)
    weight = weight if node.settings.get("transB", 0) else weight.T
    return scaled(graph, node.output, module, weight, bias)


def scaled(graph: Graph, y: str, module: nn.Module, weight: Tensor, bias: Sequence[Tensor]) -> str:
    """Fill weight and bias, with the normalization behind them if there is one."""
    shift = bias[0] if bias else torch.zeros(len(weight))
    if node := graph.only(y, "BatchNormalization"):
        gamma, beta, mean, variance = statistics(graph, node, len(weight))
        scale, y = gamma / variance.sqrt(), node.output
        weight, shift = weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), (shift - mean) * scale + beta
    put(graph, y, [module.weight, module.bias], [weight, shift])
    return y


def norm(graph: Graph, x: str, module: nn.BatchNorm2d) -> str:
    """Fill a normalization."""
    node = graph.follow(x, "BatchNormalization")
    gamma, beta, mean, variance = statistics(graph, node, module.num_features)
    targets = [module.weight, module.bias, module.running_mean, module.running_var]
    put(graph, node.output, targets, [gamma, beta, mean, variance - module.eps])  # which it adds again
    return node.output


def statistics(graph: Graph, node: Node, channels: int) -> list[Tensor]:
    """Factor, shift, mean, and variance with epsilon, of a normalization."""
    graph.check(node, training_mode=(0, 0), spatial=(1, 1))
    found = graph.tensors(node)
    if [tuple(one.shape) for one in found] != [(channels,)] * 4:
        shapes = [tuple(one.shape) for one in found]
        raise WeightsError(f"{node.output} in {graph.file} must have four times {channels} numbers, got {shapes}")
    return [*found[:3], found[3] + node.settings.get("epsilon", EPSILON)]


def activation(graph: Graph, x: str, module: nn.PReLU) -> str:
    """Fill the slopes of an activation."""
    node = graph.follow(x, "PRelu")
    (slope,) = graph.tensors(node)
    put(graph, node.output, [module.weight], [slope.squeeze(-1).squeeze(-1) if slope.ndim == 3 else slope])
    return node.output


def add(graph: Graph, x: str, y: str) -> str:
    """The sum of two values."""
    node = graph.follow(x, "Add")
    if set(node.inputs) != {x, y}:
        raise WeightsError(f"{node.output} in {graph.file} must add {x} and {y}, it adds {', '.join(node.inputs)}")
    return node.output


def flat(graph: Graph, x: str) -> str:
    """Everything of a picture in one row. A Reshape in front of a matrix of that many columns can be nothing else."""
    node = graph.only(x, "Reshape")
    if node is None:
        node = graph.follow(x, "Flatten")
        graph.check(node, axis=(1, 1))
    return node.output


def put(graph: Graph, name: str, targets: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Copy tensors to the parameters and buffers where they belong, all of which must fit."""
    wanted, found = ([tuple(one.shape) for one in ones] for ones in (targets, tensors))
    if wanted != found:
        raise WeightsError(f"{name} in {graph.file} must be {wanted}, got {found}: use the published file")
    for target, tensor in zip(targets, tensors, strict=True):
        target.copy_(tensor)
