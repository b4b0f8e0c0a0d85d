"""The OpenVINO files of the generator: a tiny one written here is read back, what lacks an array is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.convert import random_face
from studio.convert.random_face import by_band, constants, convert, fill, fill_mapping, fill_synthesis
from studio.errors import WeightsError
from studio.networks.generator import Generator
from tests import tiny

CODES = {np.dtype("<f4"): "f32", np.dtype("<i8"): "i64", np.dtype("<i4"): "i32", np.dtype("u1"): "u8"}


def network(arrays):
    """(xml, blob) of named arrays, between layers of other types."""
    layers, blob = ['<layer id="0" name="style" type="Parameter"><data shape="1, 8" element_type="f32"/></layer>'], b""
    for name, array in arrays:
        shape = f'shape="{", ".join(map(str, array.shape))}" ' if array.ndim else 'shape="" '
        data = f'element_type="{CODES[array.dtype]}" {shape}offset="{len(blob)}" size="{array.nbytes}"'
        layers.append(f'<layer id="1" name="{name}" type="Const" version="opset1"><data {data}/></layer>')
        layers.append(f'<layer id="2" name="{name}/use" type="Add"/>')
        blob += array.tobytes()
    return f"<net><layers>{''.join(layers)}</layers></net>".encode(), blob


def numbers(*shape):
    return np.arange(np.prod(shape), dtype="<f4").reshape(shape) / 7


def test_constants_in_file_order():
    arrays = [
        ("b", numbers(2, 3)),
        ("a", np.array([4, -5], "<i8")),
        ("scalar", np.array(0.5, "<f4")),
        ("a", numbers(1, 1, 2, 2)),
    ]
    found = constants(*network([*arrays[:2], ("flags", np.zeros(3, "u1")), *arrays[2:]]))
    assert [name for name, _ in found] == ["b", "a", "scalar", "a"]  # bytes are of no use here
    for (_, wanted), (_, array) in zip(arrays, found, strict=True):
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)


def test_fill_refuses_another_size():
    with pytest.raises(WeightsError, match="does not fit"):
        fill(torch.zeros(3), numbers(4))


def test_by_band():
    """Two channels: lows 0 and 1, then triples (2,3,4) and (5,6,7)."""
    assert by_band(8).tolist() == [0, 2, 3, 4, 1, 5, 6, 7]


def in_file_order(tensor, by):
    """What `fill_*` undo: rows back to the order of the file."""
    array = tensor.detach().numpy().astype("<f4")
    stored = np.empty_like(array)
    stored[by] = array
    return stored


def synthesis_arrays(net):
    """The arrays of a network as the file would hold them."""
    everything = slice(None)
    order = by_band(net.first.bias.numel())
    arrays = [("m.input.input", in_file_order(net.constant, everything))]

    def linear(prefix, layer, by=everything):
        bias = in_file_order(layer.bias, by)[None]
        arrays.extend([(f"{prefix}.weight", in_file_order(layer.weight, by)), (f"{prefix}.bias", bias)])

    def conv(prefix, part, number, weight, by):
        linear(f"{prefix}.conv.modulation", part.modulation.linear)
        arrays.append((f"Mul_{number}_copy", in_file_order(weight, by)[None]))
        arrays.append((str(100 + number), in_file_order(part.noise, everything)))
        arrays.append((f"{prefix}.bias", in_file_order(part.bias, by)[None, :, None, None]))

    conv("m.conv1", net.first, 0, net.first.weight, order)
    for i, block in enumerate(net.blocks):
        linear(f"m.layers.{i}.up.modulation", block.up.linear, order)
        for j, part in enumerate((block.conv1, block.conv2)):
            last = i == net.num_blocks - 1
            order = by_band(part.bias.numel()) if j == 1 and not last else np.arange(part.bias.numel())
            prefix = f"m.layers.{i}.conv{j + 1}"
            arrays.append((f"{prefix}.conv.weight_dw", in_file_order(part.depthwise, everything)[:, :, None]))
            conv(prefix, part, 1 + 2 * i + j, part.pointwise, order)
    head = f"m.layers.{net.num_blocks - 1}.to_img"
    linear(f"{head}.conv.modulation", net.to_image_modulation.linear)
    arrays.append((f"{head}.conv.weight", in_file_order(net.to_image.weight, by_band(12))[None]))
    arrays.append((f"{head}.bias", in_file_order(net.to_image.bias, by_band(12))[None, :, None, None]))
    return arrays


@pytest.fixture(scope="module")
def written():
    net = tiny.generator(channels=(16, 16, 8))
    return net, synthesis_arrays(net)


def test_every_array_finds_its_place(written):
    net, arrays = written
    read = Generator(channels=(16, 16, 8), style_dim=8, mapping_depth=1)
    with torch.no_grad():
        fill_synthesis(read, constants(*network(arrays)))
    wanted = {name: value for name, value in net.state_dict().items() if not name.startswith("mapping.")}
    wanted.pop("mean_latent")  # computed, not stored
    assert all(torch.equal(read.state_dict()[name], value) for name, value in wanted.items())


def test_mapping_tells_weights_and_biases_apart_by_size():
    read = Generator(channels=(8, 8), mapping_depth=2)
    arrays = [numbers(512, 512) + 1, numbers(1, 512), numbers(1), numbers(512, 512) + 2, numbers(1, 512) + 3]
    with torch.no_grad():
        fill_mapping(read, constants(*network([(str(i), array) for i, array in enumerate(arrays)])))
    first, second = read.mapping.layers
    assert torch.equal(first.weight, torch.from_numpy(arrays[0]))
    assert torch.equal(second.bias, torch.from_numpy(arrays[4])[0])


@pytest.mark.parametrize("lost", ["m.input.input", "m.layers.0.up.modulation.bias", "Mul_4_copy", "104"])
def test_a_missing_array_is_noticed(written, lost):
    _, arrays = written
    read = Generator(channels=(16, 16, 8), style_dim=8, mapping_depth=1)
    kept = [(name, array) for name, array in arrays if name != lost]
    with pytest.raises((KeyError, StopIteration)), torch.no_grad():
        fill_synthesis(read, constants(*network(kept)))


def test_convert_refuses_in_our_own_words(monkeypatch):
    empty, mapping = network([]), []
    with pytest.raises(WeightsError, match="lack the array"):
        convert(*empty, *empty)
    for i in range(8):
        mapping += [(f"w{i}", np.zeros((512, 512), "<f4")), (f"b{i}", np.zeros((1, 512), "<f4"))]
    monkeypatch.setattr(random_face, "MEAN_SAMPLES", 1)
    with pytest.raises(WeightsError, match=r"m\.input\.input") as caught:
        convert(*network(mapping), *empty)
    assert "\n" not in str(caught.value)
