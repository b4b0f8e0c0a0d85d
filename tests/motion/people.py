"""Generated people, who move as one likes: pictures that tests may show."""

import numpy as np
import torch

from studio import weights
from studio.faces.align import invert, resample
from studio.latents.edit import move
from studio.latents.prior import render
from studio.networks.generator import Generator
from studio.networks.image_head import ImageHead
from studio.networks.latent_space import LatentSpace


def generated():
    """Pictures of generated people, aligned: two that look ahead, and the first one turned to either side."""
    generator = Generator.from_pretrained(weights.path("generator")).eval()
    space, small = (
        LatentSpace.from_pretrained(weights.path("directions")),
        ImageHead.from_pretrained(weights.path("head_256")),
    )
    with torch.no_grad():
        z = [torch.randn(1, 512, generator=torch.Generator().manual_seed(seed)) for seed in (3, 7)]
        w = [generator.slots(generator.latents(one, 0.7)).clone() for one in z]
        turned = [move(space, w[0], "yaw", degrees) for degrees in (-25.0, 25.0)]
        return [render(generator, one, 256, small)[0].clamp(0, 1) for one in (*w, *turned)]


def moved(picture, count=30, rate=25, height=300, width=420):
    """A clip of a picture that shifts, rolls and zooms, and its (count,2,3) affines and roll in degrees."""
    t = np.arange(count) / rate
    roll, zoom = 12 * np.sin(3 * t), 1 + 0.15 * np.sin(2.5 * t)
    c, s = zoom * np.cos(np.radians(roll)), zoom * np.sin(np.radians(roll))
    linear = np.stack([np.stack([c, -s], 1), np.stack([s, c], 1)], 1)
    centre = np.stack([width / 2 + 25 * np.sin(3 * t), height / 2 + 10 * np.sin(4 * t)], 1)
    affines = np.concatenate([linear, (centre - linear @ [128.0, 128.0])[..., None]], 2)
    frames = [
        (k / rate, resample(picture, invert(a[None])[0], height, width).clamp(0, 1)) for k, a in enumerate(affines)
    ]
    return frames, affines, roll
