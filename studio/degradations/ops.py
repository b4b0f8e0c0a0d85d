"""What happens to a photograph, as pure functions on one image.

An image is (3,H,W) float32 RGB in [0,1]; a plane is (1,H,W), its luminance alone. Every function takes either
(written (C,H,W)), returns a new tensor of the same size and draws nothing but what its generator is for.
Lengths are pixels of the image given; `recipes` turns those of the reference size into these.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Generator, Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights JPEG and old GFPGAN code use
BLUE_PLATE = (0.05, 0.40, 0.55)  # plates before ~1905 hardly saw red: dark skin and lips, light eyes


# --- the published chain: blur, down, noise, JPEG, up ---------------------------------------------------------


def gaussian_kernel(sigma_x: float, sigma_y: float, angle: float, radius: int) -> Tensor:
    """A turned Gaussian, cut off at `radius` and normalised.

    Args:
        sigma_x: standard deviation along the first axis, px, > 0.
        sigma_y: along the second.
        angle: of the first axis against the x axis, radians.
        radius: the kernel covers 2·radius+1 px.

    Returns:
        (2·radius+1, 2·radius+1) float32 of sum 1.
    """
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    y, x = steps[:, None], steps[None, :]
    along = (x * math.cos(angle) + y * math.sin(angle)) / sigma_x
    across = (y * math.cos(angle) - x * math.sin(angle)) / sigma_y
    kernel = torch.exp(-0.5 * (along**2 + across**2))
    return kernel / kernel.sum()


def blur(image: Tensor, sigma_x: float, sigma_y: float, angle: float, radius: int) -> Tensor:
    """Convolve (C,H,W) with `gaussian_kernel`, mirrored at the border."""
    height, width = image.shape[-2:]
    radius = min(radius, math.ceil(4 * max(sigma_x, sigma_y)), height - 1, width - 1)  # mirroring needs radius < side
    if radius < 1:
        return image.clone()
    kernel = gaussian_kernel(sigma_x, sigma_y, angle, radius)
    padded = F.pad(image[None], (radius,) * 4, mode="reflect")[0]
    # Through the Fourier domain: on 256 px a 21×21 kernel costs ten times as much directly, a 5×5 one the same. The
    # circular wrap reaches just the first 2·radius rows and columns, which are the ones cut away.
    shape = tuple(_fast_length(side) for side in padded.shape[-2:])
    product = torch.fft.rfft2(padded, s=shape) * torch.fft.rfft2(kernel, s=shape)
    blurred = torch.fft.irfft2(product, s=shape)
    return blurred[:, 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width].contiguous()


def _fast_length(side: int) -> int:
    """The next length that is 2^a·3^b·5^c: a prime length makes the transform several times slower."""
    while True:
        rest = side
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return side
        side += 1


def resize(image: Tensor, side: int, interpolation: str) -> Tensor:
    """Scale (C,H,W) to (C,side,side) without antialiasing, as the published recipes do.

    Args:
        image: (C,H,W).
        side: new height and width, px.
        interpolation: "area", "bilinear" or "bicubic" (which may overshoot [0,1]; cut off here).
    """
    if image.shape[-2:] == (side, side):
        return image
    corners = None if interpolation == "area" else False
    return F.interpolate(image[None], (side, side), mode=interpolation, align_corners=corners)[0].clamp(0, 1)


def noise(image: Tensor, sigma: float, generator: Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma` (of [0,1]), another in every channel."""
    return (image + sigma * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def jpeg(image: Tensor, quality: int) -> Tensor:
    """Round (C,H,W) to 8 bits, and encode and decode it at a Pillow quality of 1–100."""
    pixels = image.mul(255).round_().clamp_(0, 255).byte()
    pixels = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous()
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(buffer)))
    decoded = decoded[None] if decoded.ndim == 2 else decoded.permute(2, 0, 1)
    return decoded.float().div_(255)


def colour_shift(image: Tensor, shift: tuple[float, float, float]) -> Tensor:
    """Add one number (of [0,1]) to each channel of (3,H,W)."""
    return (image + torch.tensor(shift)[:, None, None]).clamp(0, 1)


def luminance(image: Tensor, weights: tuple[float, float, float] = LUMA) -> Tensor:
    """(3,H,W) -> (1,H,W), by the weights of the three channels."""
    red, green, blue = weights
    return image[0:1] * red + image[1:2] * green + image[2:3] * blue


# --- what age, the press and the album do ---------------------------------------------------------------------


def tone_curve(image: Tensor, gain: float, lift: float, pivot: float = 0.5) -> Tensor:
    """Contrast around `pivot`, cut off at both ends: gain > 1 loses highlights and shadows, < 1 is a flat print."""
    return ((image - pivot) * gain + pivot + lift).clamp(0, 1)


def fade(image: Tensor, black: float, white: float, unevenness: Tensor | None = None) -> Tensor:
    """Squeeze [0,1] to [black,white]; `unevenness` (1,H,W) in [0,1] says how far, pixel by pixel."""
    faded = black + (white - black) * image
    return faded if unevenness is None else torch.lerp(image, faded, unevenness)


def clouds(size: int, cells: int, generator: Generator) -> Tensor:
    """Smooth random field (1,size,size) in [0,1] with about `cells` patches along a side."""
    coarse = torch.rand(1, 1, cells + 1, cells + 1, generator=generator)
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[0].clamp(0, 1)


def vignette(image: Tensor, strength: float, radius: float, centre: tuple[float, float], level: float) -> Tensor:
    """Let an oval print run out into black (`level` 0) or paper (1).

    Args:
        image: (C,H,W).
        strength: how far the corners are taken to `level`, 0–1.
        radius: where it begins, in half sides of the image.
        centre: (x, y) of the oval, in half sides from the middle.
        level: value of the surround, [0,1].
    """
    height, width = image.shape[-2:]
    y = torch.linspace(-1, 1, height)[:, None] - centre[1]
    x = torch.linspace(-1, 1, width)[None, :] - centre[0]
    outside = ((torch.sqrt(x**2 + 0.7 * y**2) - radius) / 0.5).clamp(0, 1)  # an upright oval
    return torch.lerp(image, torch.tensor(level), strength * outside * outside * (3 - 2 * outside))


def screen(size: int, pitch: float, angle: float, kind: str) -> Tensor:
    """Threshold pattern (1,size,size) in [0,1] of a printing screen.

    Args:
        size: side, px.
        pitch: distance between dots or lines, px; below 2 it only makes moiré.
        angle: of the rows, radians.
        kind: "dots" (halftone) or "lines" (engraving, some newsprint).
    """
    steps = torch.arange(size, dtype=torch.float32) * (2 * math.pi / pitch)
    y, x = steps[:, None], steps[None, :]
    rows = torch.cos(x * math.cos(angle) + y * math.sin(angle))
    if kind == "lines":
        return (0.5 + 0.5 * rows)[None]
    columns = torch.cos(y * math.cos(angle) - x * math.sin(angle))
    return (0.5 + 0.25 * (rows + columns))[None]


def halftone(image: Tensor, pattern: Tensor, hardness: float, amount: float) -> Tensor:
    """Print (C,H,W) through a `screen`: ink where the image is darker than the pattern.

    Args:
        image: (C,H,W).
        pattern: (1,H,W).
        hardness: slope of the edge of a dot; 4 is ink that ran, 20 is sharp.
        amount: 0 leaves the image, 1 shows the dots alone.
    """
    return torch.lerp(image, torch.sigmoid((image - pattern) * hardness), amount)


def grain(image: Tensor, sigma: float, size: float, generator: Generator) -> Tensor:
    """Silver grain: noise the same in all channels, in clumps of `size` px, strongest in the mid tones."""
    side = image.shape[-1]
    coarse = max(2, min(side, round(side / max(size, 1.0))))
    field = torch.randn(1, 1, coarse, coarse, generator=generator)
    field = F.interpolate(field, (side, side), mode="bicubic", align_corners=False)[0]
    strength = 0.35 + 2.6 * image * (1 - image)  # 1 at mid grey
    return (image + sigma * strength * field).clamp(0, 1)


def scratches(size: int, count: int, length: float, generator: Generator) -> Tensor:
    """Mask (1,size,size) in [0,1] of `count` bent hairlines, each about `length` of a side long."""
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    numbers = torch.rand(count, 16, generator=generator).tolist()
    for x, y, angle, strength, reach, *turns in numbers:
        x, y, angle = x * size, y * size, angle * 2 * math.pi
        step = length * (0.3 + reach) * size / len(turns)
        points = [(x, y)]
        for turn in turns:
            angle += (turn - 0.5) * 0.5
            x, y = x + step * math.cos(angle), y + step * math.sin(angle)
            points.append((x, y))
        draw.line(points, fill=int(90 + 165 * strength), width=max(1, round(size / 400 * (0.5 + 2 * strength))))
    return torch.from_numpy(np.array(mask))[None].float() / 255


def dust(size: int, count: int, radius: float, generator: Generator) -> Tensor:
    """Mask (1,size,size) in [0,1] of `count` specks of at most `radius` px."""
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    for x, y, wide, high, strength in torch.rand(count, 5, generator=generator).tolist():
        x, y, wide, high = x * size, y * size, radius * wide**2, radius * high**2  # most specks are small
        draw.ellipse((x - wide, y - high, x + wide, y + high), fill=int(100 + 155 * strength))
    return torch.from_numpy(np.array(mask))[None].float() / 255


def stain(image: Tensor, mask: Tensor, level: float) -> Tensor:
    """Cover (C,H,W) with `level` (0 dirt, 1 lost emulsion) where the mask (1,H,W) says."""
    return torch.lerp(image, torch.tensor(level), mask)


def duotone(plane: Tensor, ink: tuple[float, float, float], paper: tuple[float, float, float]) -> Tensor:
    """Print a plane (1,H,W) in one ink on one paper, both RGB in [0,1] -> (3,H,W)."""
    dark, light = torch.tensor(ink)[:, None, None], torch.tensor(paper)[:, None, None]
    return dark + (light - dark) * plane


def unsharp(image: Tensor, sigma: float, amount: float) -> Tensor:
    """Sharpen as scanners do: add `amount` of what a blur of `sigma` px takes away. Leaves halos."""
    return (image + amount * (image - blur(image, sigma, sigma, 0.0, math.ceil(2 * sigma)))).clamp(0, 1)
