"""What happens to a photograph, as pure functions on one image.

An image is (3,H,W) float32 RGB in [0,1]; a plane is (1,H,W), its luminance alone. Every function takes either
(written (C,H,W)), returns a new tensor of the same size and draws nothing but what its generator is for.
Lengths are pixels of the image given; `recipes` turns those of the reference size into these.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
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


def sensor_noise(
    image: Tensor, sigma: float, shot: float, tint: float, sizes: tuple[float, float], generator: Generator
) -> Tensor:
    """Add the noise of a camera's sensor, as it is after the colours were interpolated.

    Args:
        image: (3,S,S).
        sigma: standard deviation of the light's noise at middle grey, of [0,1].
        shot: share of its variance that grows with the light, 0–1.
        tint: deviation of each channel around the light, relative to `sigma`.
        sizes: px, standard deviations of the blurs of light and colours; 0 leaves pixels apart.
        generator: CPU.
    """
    light, colours = (torch.randn(shape, generator=generator) for shape in ((1, *image.shape[1:]), image.shape))
    light, colours = (_clumped(x, size) for x, size in zip((light, colours - colours.mean(0)), sizes, strict=True))
    strength = (1 - shot + 2 * shot * luminance(image)).clamp_min(0).sqrt()
    return (image + sigma * strength * (light + tint * colours)).clamp(0, 1)


def _clumped(field: Tensor, size: float) -> Tensor:
    """A random field (C,S,S) in clumps, of a standard deviation of 1."""
    if size > 0.2:
        field = blur(field, size, size, 0.0, max(1, round(3 * size)))
    return field / field.square().mean().sqrt().clamp_min(1e-6)


def to_pil(image: Tensor) -> Image.Image:
    """(C,H,W) in [0,1], rounded to 8 bits."""
    pixels = image.mul(255).round_().clamp_(0, 255).byte()
    pixels = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous()
    return Image.fromarray(pixels.numpy())


def from_pil(picture: Image.Image) -> Tensor:
    """A picture of 8 bits to (C,H,W) in [0,1]; C is 1 for grey, else 3."""
    pixels = torch.from_numpy(np.array(picture))
    pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    return pixels.float().div_(255)


def jpeg(image: Tensor, quality: int, subsampling: int = -1) -> Tensor:
    """Round (C,H,W) to 8 bits, and encode and decode it at a Pillow quality of 1–100.

    Args:
        image: (C,H,W).
        quality: 1–100.
        subsampling: of the colours: 0 is 4:4:4, 1 4:2:2, 2 4:2:0, -1 Pillow's own choice.
    """
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return from_pil(Image.open(buffer))


def colour_shift(image: Tensor, shift: Sequence[float]) -> Tensor:
    """Add one number (of [0,1]) each to the three channels of (3,H,W)."""
    return (image + torch.tensor(shift)[:, None, None]).clamp(0, 1)


def luminance(image: Tensor, weights: tuple[float, float, float] = LUMA) -> Tensor:
    """(3,H,W) -> (1,H,W), by the weights of the three channels."""
    red, green, blue = weights
    return image[0:1] * red + image[1:2] * green + image[2:3] * blue


# --- what websites, chat programs and viewers do --------------------------------------------------------------

KERNELS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resample(image: Tensor, side: int, kernel: str) -> Tensor:
    """Scale (C,H,W) to (C,side,side) as programs do: 8 bits, antialiased when it shrinks ("nearest" apart).

    Args:
        image: (C,H,W).
        side: new height and width, px.
        kernel: a name of `KERNELS`.
    """
    return from_pil(to_pil(image).resize((side, side), KERNELS[kernel]))


def webp(image: Tensor, quality: int) -> Tensor:
    """Encode and decode (C,H,W) as lossy WebP of a quality of 1–100."""
    buffer = io.BytesIO()
    to_pil(image).convert("RGB").save(buffer, "WEBP", quality=quality, method=0)
    return from_pil(Image.open(buffer).convert("RGB"))[: len(image)]


def median(image: Tensor, size: int) -> Tensor:
    """Median of size × size px (odd): noise goes, faces turn to plastic."""
    return from_pil(to_pil(image).filter(ImageFilter.MedianFilter(size)))


def smooth_skin(image: Tensor, radius: int, contrast: float) -> Tensor:
    """A "beauty" filter: smooths what has less local contrast than `contrast`, and leaves edges.

    The self-guided filter of He et al. (ECCV 2010, equations 5 and 6).

    Args:
        image: (C,H,W).
        radius: px, of the square over which is averaged.
        contrast: standard deviation in [0,1] of what is smoothed by half.
    """
    side, x = 2 * radius + 1, image[None]

    def mean(t: Tensor) -> Tensor:
        return F.avg_pool2d(t, side, 1, radius, count_include_pad=False)

    average = mean(x)
    share = (mean(x * x) - average**2).clamp_min(0)
    share = share / (share + contrast**2)
    return (mean(share) * x + mean((1 - share) * average))[0].clamp(0, 1)


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


def creases(size: int, count: int, width: float, generator: Generator) -> Tensor:
    """Mask (1,size,size) in [0,1] of `count` folds and tears from edge to edge, jagged, at most `width` px wide.

    They cross the middle of the picture, where the face is.
    """
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    for _ in range(count):
        angle, x, y, wide, strength = torch.rand(5, generator=generator).tolist()
        bends = torch.randn(33, generator=generator)
        frays = (0.4 + torch.rand(32, generator=generator)).tolist()
        drift = (bends.cumsum(0) - bends.sum() * torch.linspace(0, 1, 33)) * size * 0.008
        angle, x, y = angle * math.pi, (0.25 + 0.5 * x) * size, (0.25 + 0.5 * y) * size
        along = torch.linspace(-1, 1, 33) * size * 1.5
        xs = (x + along * math.cos(angle) - drift * math.sin(angle)).tolist()
        ys = (y + along * math.sin(angle) + drift * math.cos(angle)).tolist()
        points, thick = list(zip(xs, ys, strict=True)), width * (0.25 + 0.75 * wide)
        for start, end, fray in zip(points, points[1:], frays, strict=False):
            draw.line((start, end), fill=int(140 + 115 * strength), width=max(1, round(thick * fray)))
    return torch.from_numpy(np.array(mask))[None].float() / 255


def writing(size: int, words: int, width: float, generator: Generator) -> Tensor:
    """Mask (1,size,size) in [0,1] of `words` scribbled in ink, lines `width` px wide."""
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    for _ in range(words):
        x, y, slope, tall, fast = torch.rand(5, generator=generator).tolist()
        steps = torch.linspace(0, 1, 80)
        waves = torch.rand(3, generator=generator) * 2 * math.pi
        tall, long = (0.01 + 0.03 * tall) * size, (0.15 + 0.3 * fast) * size
        xs = x * size + long * steps + 0.5 * tall * torch.cos(60 * steps + waves[0])
        ys = y * size + (slope - 0.5) * long * steps + tall * torch.sin(60 * steps) * torch.sin(17 * steps + waves[1])
        draw.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=255, width=max(1, round(width)))
    return torch.from_numpy(np.array(mask))[None].float() / 255


def blotches(size: int, count: int, generator: Generator) -> Tensor:
    """Mask (1,size,size) in [0,1] of `count` stains with a rim, as water leaves them."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, size),) * 2, indexing="ij")
    mask = torch.zeros(size, size)
    for cx, cy, radius, rim in torch.rand(count, 4, generator=generator).tolist():
        edge = (0.05 + 0.2 * radius) * (0.75 + 0.5 * clouds(size, 5, generator)[0])
        inside = ((edge - torch.hypot(x - cx, y - cy)) / 0.02).clamp(0, 1)
        near_rim = 1 - ((edge - torch.hypot(x - cx, y - cy)).abs() / 0.02).clamp(0, 1)
        mask = torch.maximum(mask, 0.5 * inside + 0.5 * rim * near_rim)
    return mask[None]


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


def duotone(plane: Tensor, ink: Sequence[float], paper: Sequence[float]) -> Tensor:
    """Print a plane (1,H,W) in one ink on one paper, both RGB in [0,1] -> (3,H,W)."""
    dark, light = torch.tensor(ink)[:, None, None], torch.tensor(paper)[:, None, None]
    return dark + (light - dark) * plane


def unsharp(image: Tensor, sigma: float, amount: float) -> Tensor:
    """Sharpen as scanners do: add `amount` of what a blur of `sigma` px takes away. Leaves halos."""
    return (image + amount * (image - blur(image, sigma, sigma, 0.0, math.ceil(2 * sigma)))).clamp(0, 1)
