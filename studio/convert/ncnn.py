"""Upsamplers out of ncnn's two files: a `.param` text with one layer on a line, and a `.bin` of their numbers in order.

A line of the text is: kind, name, how many inputs and outputs, their names, then settings as `number=value`. In the
`.bin` a convolution has a mark of four bytes that says how its weights are stored (half precision here, padded to four
bytes, or float32), the weights as (out, in, height, width), then a plain float32 bias. A constant is plain float32.
Other kinds of layer have no numbers; one that is not known here could have some, and is refused.

The port is by order: the convolutions of the file must fit those of the torch network one by one, the constants its
buffers, and nothing may be left over. That the layers between them are the same is what the fingerprint holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from studio.errors import WeightsError
from studio.networks.rrdb import RRDBNet
from studio.networks.span import SPAN

N = TypeVar("N", bound=nn.Module)

MAGIC = "7767517"
HALF, FLOAT = 0x01306B47, 0  # how a convolution's weights are stored
PLAIN = {"Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp", "Swish", "Sigmoid", "PixelShuffle"}
OUTPUTS, KERNEL, HAS_BIAS, WEIGHTS = "0", "1", "5", "6"  # settings of a convolution


@dataclass(frozen=True)
class Layer:
    """One layer with numbers: `weight` (out, in, k, k) and `bias` (out,) of a convolution, or a constant alone."""

    kind: str
    name: str
    weight: Tensor
    bias: Tensor | None = None


class Blob:
    """Walks through the bytes of a `.bin`."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def numbers(self, count: int, dtype: str = "<f4") -> np.ndarray:
        """The next `count` numbers, as float32."""
        start, size = self.position, count * np.dtype(dtype).itemsize
        if count < 0 or start + size > len(self.data):
            raise WeightsError(f"the ncnn .bin ends within a layer, at byte {len(self.data)}: fetch it again")
        self.position = start + -(-size // 4) * 4  # to a multiple of four bytes
        return np.frombuffer(self.data, dtype, count=count, offset=start).astype(np.float32)

    def weights(self, count: int) -> np.ndarray:
        """The next `count` weights of a convolution, stored as the mark before them says."""
        mark = int.from_bytes(self.data[self.position : self.position + 4], "little")
        self.position += 4
        if mark not in (HALF, FLOAT):
            raise WeightsError(
                f"weights in an ncnn .bin must be float16 or float32, got the mark {mark:#x} at byte"
                f" {self.position - 4}: take a file that is not quantised"
            )
        return self.numbers(count, "<f2" if mark == HALF else "<f4")


def read(param: bytes, data: bytes) -> list[Layer]:
    """The layers with numbers, in file order.

    Args:
        param: the whole `.param` file.
        data: the whole `.bin` file.

    Raises:
        WeightsError: not ncnn's text format, a kind of layer that is not known here, or another number of bytes.
    """
    lines = param.decode("utf-8", "replace").splitlines()
    if not lines or lines[0].strip() != MAGIC:
        raise WeightsError(f"an ncnn .param must begin with {MAGIC}, this one does not: fetch it again")
    blob, found = Blob(data), []
    for line in lines[2:]:
        words = line.split()
        if not words:
            continue
        kind, name, settings = words[0], words[1], dict(word.split("=", 1) for word in words[4:] if "=" in word)
        if kind == "Convolution":
            found.append(convolution(name, settings, blob))
        elif kind == "MemoryData":
            shape = [int(settings[axis]) for axis in ("2", "1", "0") if int(settings.get(axis, 0))]  # (c, h, w)
            found.append(Layer(kind, name, torch.from_numpy(blob.numbers(int(np.prod(shape)))).reshape(shape)))
        elif kind not in PLAIN:
            raise WeightsError(f"layers in an ncnn .param must be of known kinds, got {kind}: take another file")
    if blob.position != len(data):
        raise WeightsError(f"the ncnn .bin must end at byte {blob.position}, it has {len(data)}: fetch it again")
    return found


def convolution(name: str, settings: dict[str, str], blob: Blob) -> Layer:
    """A convolution's numbers; how many inputs it has follows from how many numbers there are."""
    outputs, kernel, count = (int(settings.get(key, 0)) for key in (OUTPUTS, KERNEL, WEIGHTS))
    if not outputs or not kernel or count % (outputs * kernel * kernel):
        raise WeightsError(f"convolution {name} must have whole kernels, got {settings}: fetch the .param again")
    weight = torch.from_numpy(blob.weights(count)).reshape(outputs, -1, kernel, kernel)
    bias = torch.from_numpy(blob.numbers(outputs)) if settings.get(HAS_BIAS, "0") == "1" else torch.zeros(outputs)
    return Layer("Convolution", name, weight, bias)


def real_esrgan(param: bytes, data: bytes) -> RRDBNet:
    """Real-ESRGAN x4plus from `realesrgan-x4plus.param` and `.bin`."""
    return fill(RRDBNet(), read(param, data))


def span(param: bytes, data: bytes) -> SPAN:
    """SPAN x4 with 48 channels from `spanx4_ch48.param` and `.bin`."""
    return fill(SPAN(), read(param, data))


def fill(net: N, layers: Sequence[Layer]) -> N:
    """Copy the convolutions of a file into those of `net`, and its constants into the buffers, in order."""
    convolutions = [layer for layer in layers if layer.kind == "Convolution"]
    modules = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    constants = [layer for layer in layers if layer.kind == "MemoryData"]
    buffers = list(net.buffers())
    if (len(convolutions), len(constants)) != (len(modules), len(buffers)):
        raise WeightsError(
            f"{type(net).__name__} must have {len(modules)} convolutions and {len(buffers)} constants, the file has"
            f" {len(convolutions)} and {len(constants)}: take another file"
        )
    for layer, module in zip(convolutions, modules, strict=True):
        put(layer.name, layer.weight, module.weight)
        put(layer.name, layer.bias, module.bias)
    for layer, buffer in zip(constants, buffers, strict=True):
        put(layer.name, layer.weight, buffer.squeeze(0))
    return net.eval()


def put(name: str, found: Tensor | None, target: Tensor | None) -> None:
    """Copy a tensor of the file into one of the network, which must have its shape."""
    if found is None or target is None or found.shape != target.shape:
        wanted, given = (None if one is None else tuple(one.shape) for one in (target, found))
        raise WeightsError(f"{name} must be {wanted}, the file has {given}: take another file")
    target.data.copy_(found)
