"""dlib's serialised network: a file written here in the same format is read back, damaged ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.convert import dlib
from studio.errors import WeightsError
from studio.networks.identity import IdentityNet

SETTINGS = bytes([1, 3, 1, 7]) * 20


def integer(value):
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def layer(kind, numbers, before=b"", shape=None):
    shape = shape or (numbers.size, 1, 1, 1)
    name = integer(len(kind)) + kind.encode()
    return name + before + b"".join(map(integer, (2, *shape))) + numbers.astype("<f4").tobytes() + SETTINGS


@pytest.fixture(scope="module")
def parts():
    """The pieces of a file that describes `IdentityNet()` with random weights, and the network."""
    torch.manual_seed(0)
    net, pieces = IdentityNet().eval(), [SETTINGS]
    with torch.no_grad():
        for conv in dlib.convolutions(net):
            factor, offset = np.full(conv.out_channels, 2.0), np.full(conv.out_channels, 0.25)
            weight, bias = (p.numpy().ravel().astype(np.float64) for p in (conv.weight / 2, (conv.bias - 0.25) / 2))
            pieces.append(layer("con_4", np.concatenate([weight, bias])))
            pieces.append(layer("affine_", np.concatenate([factor, offset])))
        matrix = net.embed.weight.numpy().T
        pieces.append(layer("fc_2", matrix.ravel(), integer(matrix.shape[1]) + integer(0), (*matrix.shape, 1, 1)))
    return pieces, net


def test_reads_what_was_written(parts):
    pieces, net = parts
    read = dlib.identity(b"".join(pieces)).state_dict()
    assert all(torch.allclose(read[name], value, atol=1e-6) for name, value in net.state_dict().items())


@pytest.mark.parametrize("value", [0, 5, 255, 256, 22_466_066, -3, -70_000])
def test_integers(value):
    assert dlib.Reader(integer(value)).integer() == value


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x30\x01", b"\x0f"])
def test_what_is_no_integer(data):
    with pytest.raises(WeightsError):
        dlib.Reader(data).integer()


def refuse(data, match):
    with pytest.raises(WeightsError, match=match) as caught:
        dlib.identity(data)
    assert "\n" not in str(caught.value)


def test_refuses_other_files(parts):
    pieces, _ = parts
    refuse(b"", "con_4")
    refuse(b"\x00" * 10_000, "con_4")
    refuse(b"".join(pieces[:20])[:-5000], "ends|must follow|must stand")
    refuse(b"".join(pieces[:-1]), "fc_2")
    refuse(b"".join(pieces) + b"\x01" * 1000, "goes on")
    refuse(b"".join([*pieces[:1], *pieces[3:]]), "a tensor of")
