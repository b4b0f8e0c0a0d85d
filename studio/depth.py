"""The depth of faces in a photograph, and a picture of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from studio import images
from studio.faces import align
from studio.faces.faces import Faces
from studio.motion.dense import Still
from studio.networks.depth import DepthNet

SIDE = 256  # px of the crops that are looked at
SHOWN = 512  # px of a picture of depth


@torch.no_grad()
def depths(pixels: Tensor, faces: Faces, net: DepthNet) -> tuple[Tensor, Tensor]:
    """How deep everything lies in the aligned crops of faces.

    Args:
        pixels: (3,H,W) RGB in [0,1], the photo.
        faces: N of its faces.
        net: says how deep hair, ears and neck lie.

    Returns:
        The crops (N,3,256,256) RGB in [0,1], FFHQ-aligned, and their depths (N,1,h,w) float32: z in sides of the crop,
        away from the camera.
    """
    affines = align.ffhq_transform(faces.mesh, SIDE)
    crops = align.warp(pixels, affines, SIDE).clamp(0, 1)
    inside = align.into_crop(faces.mesh, affines, SIDE).astype(np.float32)
    rough = torch.cat([Still(mesh).depth() for mesh in inside])
    found, _ = net(crops.to(net.device, net.dtype), rough.to(net.device, net.dtype))
    return crops, found.float().cpu()


def picture(depth: Tensor, side: int = SHOWN) -> Tensor:
    """A depth (1,h,w) to look at: (3,side,side) in [0,1], light where it is near, dark where it is far."""
    near, far = depth.min(), depth.max()
    light = (far - depth) / (far - near).clamp(min=1e-6)
    return images.resize(light, side, side).clamp(0, 1).expand(3, -1, -1)
