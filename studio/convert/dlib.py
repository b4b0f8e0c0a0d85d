"""dlib's serialised face recognition ResNet to an `IdentityNet`.

dlib writes a network as a stream of layers without a table of contents. An integer is one control byte (low four
bits: number of bytes, top bit: sign) and that many little-endian bytes; a text is its length and its bytes; a tensor
is the integer 2 (its version), four dimensions, then little-endian float32. A layer with weights is a text that
names its kind, followed (for `fc_2` after two settings) by one tensor: "con_4" holds the kernels and then the
biases, "affine_" the factors and then the offsets.

The settings that stand between layers are not decoded; they are skipped by looking for the next layer's name, which
has to come within `GAP` bytes. Every tensor must have exactly the expected size, and nothing may follow the last.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from studio.errors import WeightsError
from studio.networks.identity import IdentityNet

GAP = 512  # the settings between two tensors take fewer than 300 bytes


class Reader:
    """Walks through the bytes of a `.dat` file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def integer(self) -> int:
        """The integer at the position."""
        control = self.data[self.position] if self.position < len(self.data) else 0  # 0 is no control byte
        start = self.position + 1
        count = control & 0x0F
        if control & 0x70 or not 1 <= count <= 8:
            raise WeightsError(f"an integer must stand at byte {self.position} of the file: not dlib's face network")
        self.position = start + count
        value = int.from_bytes(self.data[start : self.position], "little")
        return -value if control & 0x80 else value

    def find(self, kind: str) -> None:
        """Move behind the name of the next layer, which must be of this kind."""
        name = bytes([1, len(kind)]) + kind.encode()
        found = self.data.find(name, self.position, self.position + GAP)
        if found < 0:
            raise WeightsError(
                f"a layer {kind} must follow byte {self.position} of the dlib file: not the expected file"
            )
        self.position = found + len(name)

    def tensor(self, size: int) -> np.ndarray:
        """The tensor at the position, flat float32, which must have `size` elements."""
        version, *shape = [self.integer() for _ in range(5)]
        if version != 2 or np.prod(shape) != size:
            raise WeightsError(f"a tensor of {size} numbers must stand here, got {shape}: not dlib's face network")
        start, self.position = self.position, self.position + 4 * size
        if self.position > len(self.data):
            raise WeightsError(f"the dlib file ends within a tensor, at byte {len(self.data)}: fetch it again")
        return np.frombuffer(self.data, "<f4", count=size, offset=start).astype(np.float32)

    def end(self) -> None:
        """Raise unless only settings are left."""
        if len(self.data) - self.position > GAP:
            raise WeightsError(f"the dlib file goes on after byte {self.position}: not dlib's face network")


def identity(data: bytes) -> IdentityNet:
    """Build the identity network from `dlib_face_recognition_resnet_model_v1.dat`.

    Args:
        data: the whole file; 59 tensors: 29 times a convolution and its affine step, then the matrix.

    Returns:
        `IdentityNet` in eval mode, float32, affine steps folded in.

    Raises:
        WeightsError: another file.
    """
    net = IdentityNet()
    reader = Reader(data)
    with torch.no_grad():
        for conv in convolutions(net):
            fill_convolution(conv, reader)
        reader.find("fc_2")
        outputs, _has_bias = reader.integer(), reader.integer()
        matrix = reader.tensor(net.embed.weight.numel()).reshape(-1, outputs)  # one row per input
        net.embed.weight.copy_(torch.from_numpy(matrix.T.copy()))
    reader.end()
    return net.eval()


def convolutions(net: IdentityNet) -> list[nn.Conv2d]:
    """All convolutions in the order of the forward pass, which is the order of the file."""
    return [net.stem, *(conv for stage in net.stages for block in stage for conv in (block.conv1, block.conv2))]


def fill_convolution(conv: nn.Conv2d, reader: Reader) -> None:
    """Read one convolution and its affine step: factor * (W x + b) + offset = (factor W) x + (factor b + offset)."""
    reader.find("con_4")
    numbers = torch.from_numpy(reader.tensor(conv.weight.numel() + conv.out_channels))
    weight, bias = numbers[: conv.weight.numel()].view_as(conv.weight), numbers[conv.weight.numel() :]
    reader.find("affine_")
    factor, offset = torch.from_numpy(reader.tensor(2 * conv.out_channels)).chunk(2)
    conv.weight.copy_(weight * factor[:, None, None, None])
    conv.bias = torch.nn.Parameter(bias * factor + offset)
