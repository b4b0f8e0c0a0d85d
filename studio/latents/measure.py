"""Measuring aligned faces: where they lie is known, so no detector is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.faces.align import dlib_transform, warp
from studio.faces.attributes import attributes_from_mesh, bridge_edge, side_light
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.networks.latent_space import LatentSpace

# Where FFHQ alignment puts a face, shares of the side: the box of the mesh, and the eyes.
BOX = (0.3, 0.3, 0.7, 0.82)
EYES = ((0.39, 0.48), (0.61, 0.48))
MIN_PRESENCE = 0.5
MESH_EVERY = 8  # steps of a search between two looks at where the face lies


@dataclass(frozen=True)
class Measured:
    """Aligned faces, measured; row i is image i.

    Attributes:
        mesh: (N,468,3) float32, pixels of the images.
        presence: (N,) float32 in [0,1], how sure the mesh is that there is a face.
    """

    mesh: np.ndarray
    presence: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """(N,) bool: a face, surely."""
        return self.presence >= MIN_PRESENCE


def place_aligned(finder: FaceFinder, images: Tensor) -> Measured:
    """The mesh on FFHQ-aligned faces.

    Args:
        finder: only its mesh is used.
        images: (N,3,S,S) float RGB in [0,1], one face each.
    """
    if not len(images):
        return Measured(np.zeros((0, 468, 3), np.float32), np.zeros(0, np.float32))
    with torch.no_grad():
        mesh, presence = trace_aligned(finder, images)
    return Measured(mesh.cpu().numpy(), presence.cpu().numpy())


def trace_aligned(finder: FaceFinder, images: Tensor) -> tuple[Tensor, Tensor]:
    """The mesh on FFHQ-aligned faces, with gradients to the pictures.

    Args:
        finder: only its mesh is used.
        images: (N,3,S,S) float RGB in [0,1], one face each, N at least 1.

    Returns:
        Meshes (N,468,3) in pixels of the images and presence (N,) in [0,1], float32.
    """
    side = images.shape[-1]
    like: dict[str, Any] = {"device": finder.mesh.device, "dtype": finder.mesh.dtype}
    box, eyes = (torch.tensor([shares]).to(**like) * side for shares in (BOX, EYES))
    mesh, presence = zip(*(finder.place(image.to(**like), box, eyes) for image in images), strict=True)
    return torch.cat(mesh).float(), torch.cat(presence).float()


def attributes(images: Tensor, mesh: np.ndarray) -> np.ndarray:
    """`ATTRIBUTES` (N,8) of aligned faces (N,3,S,S) with their meshes (N,468,3)."""
    seen = [measure(images, mesh)[:, None] for measure in (side_light, bridge_edge)]
    return np.concatenate([attributes_from_mesh(mesh), *seen], 1)


def measure_all(
    space: LatentSpace, encoder: IdentityEncoder, images: Tensor, mesh: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Aligned faces (N,3,S,S) with their meshes (N,468,3), measured.

    Returns:
        All that `space` has directions for (N,A), and identity vectors (N,128); float32, on the CPU.
    """
    vectors = embed(encoder, images, mesh).float().cpu()
    seen = torch.from_numpy(attributes(images.cpu(), mesh))
    return torch.cat([seen, space.read(vectors)[:, None].to(seen)], 1), vectors


def embed(encoder: IdentityEncoder, images: Tensor, mesh: np.ndarray) -> Tensor:
    """Identity vectors (N,128) of aligned faces (N,3,S,S); with gradients to the images."""
    chips = warp(images, dlib_transform(mesh, encoder.size), encoder.size)
    return encoder.embed_chips(chips)


class Resemblance:
    """Squared identity distance of pictures to one person, as a cost for `studio.latents.search`.

    Args:
        finder: places the mesh; only now and then, because an aligned face hardly moves.
        encoder: embeds.
        wanted: (128,) identity vector of the person.
        weight: of the squared distance.
    """

    def __init__(self, finder: FaceFinder, encoder: IdentityEncoder, wanted: Tensor, weight: float) -> None:
        self.finder, self.encoder, self.wanted, self.weight = finder, encoder, wanted, weight
        self.mesh = np.zeros((0, 468, 3), np.float32)

    def __call__(self, pictures: Tensor, step: int) -> Tensor:
        """Pictures (N,3,S,S) RGB in [0,1] at a step -> costs (N,), with gradients."""
        if step % MESH_EVERY == 0:
            self.mesh = place_aligned(self.finder, pictures.detach().clamp(0, 1)).mesh
        vectors = embed(self.encoder, pictures.clamp(0, 1), self.mesh)
        return self.weight * (vectors - self.wanted.to(vectors)).square().sum(1)
