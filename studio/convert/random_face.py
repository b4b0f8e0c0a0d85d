"""MobileStyleGAN from the OpenVINO files of the `random-face` package to a `Generator`.

An OpenVINO network is an XML graph beside one binary blob; every layer of type `Const` says where its array
lies in the blob. The layers keep the names of the original PyTorch modules, except the folded ones: the
pointwise weights (demodulation folded in) are `Mul_*_copy` and the noise maps have plain numbers as names, both
in network order.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor, nn

from studio.errors import WeightsError
from studio.networks.generator import Generator, StyledConv

DTYPES = {"f32": np.dtype("<f4"), "i64": np.dtype("<i8"), "i32": np.dtype("<i4")}
MEAN_SAMPLES = 4096


def constants(xml: bytes, blob: bytes) -> list[tuple[str, np.ndarray]]:
    """All constant arrays of an OpenVINO IR in file order, as (name, array)."""
    found = []
    for layer in ElementTree.fromstring(xml).iter("layer"):
        if layer.get("type") != "Const":
            continue
        told: Any = layer.find("data")  # every constant has one
        data = told.attrib
        dtype = DTYPES.get(data["element_type"])
        if dtype is None:
            continue
        shape = [int(n) for n in data["shape"].split(",")] if data.get("shape") else []
        count = int(data["size"]) // dtype.itemsize
        array = np.frombuffer(blob, dtype, count=count, offset=int(data["offset"])).reshape(shape)
        found.append((layer.get("name", ""), array))
    return found


def fill(target: Tensor, array: np.ndarray) -> None:
    """Copy an array into a parameter of the same number of elements, or refuse."""
    if target.numel() != array.size:
        raise WeightsError(f"array of {array.shape} does not fit {tuple(target.shape)}: not the expected file")
    target.copy_(torch.from_numpy(array.astype(np.float32)).reshape(target.shape))


def by_band(channels: int) -> np.ndarray:
    """Order that puts the four wavelet bands of one channel beside each other.

    The file holds C low-pass channels, then C triples (lh, hl, hh); `inverse_haar` wants (ll, lh, hl, hh) together.
    """
    c = channels // 4
    low = np.arange(c)
    return np.stack([low, c + 3 * low, c + 3 * low + 1, c + 3 * low + 2], 1).ravel()


def fill_linear(linear: nn.Linear, named: dict[str, np.ndarray], prefix: str, order: np.ndarray | None = None) -> None:
    """Copy `prefix.weight` and `prefix.bias` into a linear layer, its outputs in `order`."""
    rows = np.arange(linear.out_features) if order is None else order
    fill(linear.weight, named[f"{prefix}.weight"].reshape(linear.weight.shape)[rows])
    fill(linear.bias, named[f"{prefix}.bias"].ravel()[rows])


def convert(mapping_xml: bytes, mapping_bin: bytes, synthesis_xml: bytes, synthesis_bin: bytes) -> Generator:
    """Build the generator from the four files.

    Returns:
        `Generator` in eval mode, float32, with the mean latent of 4,096 samples (seed 0) filled in.

    Raises:
        WeightsError: an array is missing or has another size.
    """
    generator = Generator()
    with torch.no_grad():
        try:
            fill_mapping(generator, constants(mapping_xml, mapping_bin))
            fill_synthesis(generator, constants(synthesis_xml, synthesis_bin))
        except (KeyError, StopIteration) as error:
            raise WeightsError(f"generator files lack the array {error}: not the expected files") from error
        z = torch.randn(MEAN_SAMPLES, 512, generator=torch.Generator().manual_seed(0))
        generator.mean_latent.copy_(generator.mapping(z).mean(0))
    return generator.eval()


def fill_mapping(generator: Generator, arrays: list[tuple[str, np.ndarray]]) -> None:
    """The linear constants come in order, weights and biases told apart by size."""
    floats = [array for _, array in arrays if array.dtype == np.float32]
    weights = iter(array for array in floats if array.size == 512 * 512)
    biases = iter(array for array in floats if array.size == 512)
    for layer in generator.mapping.layers:
        fill(layer.weight, next(weights))
        fill(layer.bias, next(biases))


def fill_synthesis(generator: Generator, arrays: list[tuple[str, np.ndarray]]) -> None:
    """Named constants by name; pointwise weights and noise maps by order."""
    named = dict(arrays)
    pointwise = iter(a for name, a in arrays if name.startswith("Mul_") and name.endswith("_copy"))
    noises = iter(
        a for name, a in arrays if name.isdigit() and a.dtype == np.float32 and a.ndim == 4 and a.shape[:2] == (1, 1)
    )
    fill(generator.constant, named["m.input.input"])
    fill_linear(generator.first.modulation.linear, named, "m.conv1.conv.modulation")
    # Whatever feeds a wavelet step is stored in the order that the step reads; the maps between blocks follow.
    order = by_band(generator.first.bias.numel())
    fill(generator.first.weight, next(pointwise).reshape(generator.first.weight.shape)[order])
    fill(generator.first.noise, next(noises))
    fill(generator.first.bias, named["m.conv1.bias"].ravel()[order])
    for i, block in enumerate(generator.blocks):
        prefix = f"m.layers.{i}"
        fill_linear(block.up.linear, named, f"{prefix}.up.modulation", order)
        for name in ("conv1", "conv2"):
            conv: StyledConv = getattr(block, name)
            fill_linear(conv.modulation.linear, named, f"{prefix}.{name}.conv.modulation")
            fill(conv.depthwise, named[f"{prefix}.{name}.conv.weight_dw"])
            feeds_a_step = name == "conv2" and i < generator.num_blocks - 1
            order = by_band(conv.bias.numel()) if feeds_a_step else np.arange(conv.bias.numel())
            fill(conv.pointwise, next(pointwise).reshape(conv.pointwise.shape)[order])
            fill(conv.noise, next(noises))
            fill(conv.bias, named[f"{prefix}.{name}.bias"].ravel()[order])
    head = f"m.layers.{generator.num_blocks - 1}.to_img"
    fill_linear(generator.to_image_modulation.linear, named, f"{head}.conv.modulation")
    order = by_band(12)
    fill(generator.to_image.weight, named[f"{head}.conv.weight"].reshape(12, -1)[order])
    bias: Any = generator.to_image.bias
    fill(bias, named[f"{head}.bias"].ravel()[order])
