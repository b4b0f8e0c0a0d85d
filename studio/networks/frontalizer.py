"""The two-pathway network: an aligned face that looks aside to the latents of the same person from the front.

TP-GAN (arXiv 1704.04086) draws the front with a decoder; here a frozen generator draws it, and the network
predicts what that needs. One pathway sees the whole face, four others an eye, the other eye, the nose and the mouth,
each cut where the mesh finds it. Their features are fused with what is measured anyway: who the person is (identity
vector) and how the head lies (the mesh).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.faces.templates import LEFT_EYE_CORNERS, MOUTH_CORNERS, NOSE_BASE, POINTS, RIGHT_EYE_CORNERS
from studio.networks.loading import StrictModel
from studio.networks.restorer import ResidualBlock, stage

NOSE_BRIDGE = 168
# Middle of each patch (mean of these mesh points), and its side in sides of the face's picture.
PATCHES = (
    (RIGHT_EYE_CORNERS, 0.21),
    (LEFT_EYE_CORNERS, 0.21),
    ((NOSE_BRIDGE, NOSE_BASE), 0.24),
    (MOUTH_CORNERS, 0.28),
)


class Frontalizer(StrictModel):
    """Aligned face, its mesh and identity vector -> Gaussian coordinates of the front (see `LatentSpace`).

    Args:
        size: side of the faces; patches are cut from them.
        whole: side of what the global pathway sees, a multiple of 32.
        widths: its channels at 1/4, 1/8, 1/16 and 1/32.
        patch: side of a patch, a multiple of 8.
        patch_widths: channels of a local pathway at 1/4 and 1/8 of that.
        features: how many the global pathway gives.
        patch_features: each local one.
        mesh_features: the mesh.
        hidden: width of the fused layers.
        latent_dim: length of one latent.
        identity_dim: length of an identity vector.
        norm: normalise what the global pathway has seen. Without it its sums grew until nothing passed the SiLU behind
            them, in the weights that were trained first; these say False.

    Buffers, float32: `mesh_mean` (468,3) and `mesh_spread` (1,) of meshes, `identity_mean` (E,) and `identity_spread`
    (1,), `mean` and `spread` (2,D) of the coordinates, in which the last layer predicts.
    """

    @register_to_config
    def __init__(
        self,
        size: int = 192,
        whole: int = 96,
        widths: tuple[int, ...] = (40, 64, 88, 112),
        patch: int = 40,
        patch_widths: tuple[int, ...] = (24, 48),
        features: int = 192,
        patch_features: int = 48,
        mesh_features: int = 64,
        hidden: int = 352,
        latent_dim: int = 512,
        identity_dim: int = 128,
        norm: bool = True,
    ) -> None:
        super().__init__()
        c4, c8, c16, c32 = widths
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, c4, 3, padding=1),
            ResidualBlock(c4),
            stage(c4, c8, 1),
            stage(c8, c16, 1),
            stage(c16, c32, 1),
            nn.GroupNorm(8, c32) if norm else nn.Identity(),
            nn.Flatten(),
            nn.SiLU(),
            nn.Linear(c32 * (whole // 32) ** 2, features),
        )
        p4, p8 = patch_widths
        self.local = nn.ModuleList(
            nn.Sequential(
                nn.PixelUnshuffle(4),
                nn.Conv2d(48, p4, 3, padding=1),
                ResidualBlock(p4),
                stage(p4, p8, 1),
                nn.Flatten(),
                nn.SiLU(),
                nn.Linear(p8 * (patch // 8) ** 2, patch_features),
            )
            for _ in PATCHES
        )
        self.of_mesh = nn.Linear(3 * POINTS, mesh_features)
        fused = features + len(PATCHES) * patch_features + mesh_features + identity_dim
        self.fuse = nn.Sequential(nn.Linear(fused, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.leave = nn.Linear(hidden, 2 * latent_dim)
        nn.init.zeros_(self.leave.weight)  # begins with the mean front
        nn.init.zeros_(self.leave.bias)
        self.register_buffer("mesh_mean", torch.zeros(POINTS, 3))
        self.register_buffer("mesh_spread", torch.ones(1))
        self.register_buffer("identity_mean", torch.zeros(identity_dim))
        self.register_buffer("identity_spread", torch.ones(1))
        self.register_buffer("mean", torch.zeros(2, latent_dim))
        self.register_buffer("spread", torch.ones(2, latent_dim))

    @torch.no_grad()
    def fit(self, mesh: Tensor, identities: Tensor, coordinates: Tensor) -> None:
        """Set the statistics from meshes (N,468,3), identity vectors (N,E) and coordinates of fronts (P,2,D)."""
        for name, values in (("mesh", mesh), ("identity", identities)):
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_spread").fill_(float((values - values.mean(0)).std()))
        self.mean.copy_(coordinates.mean(0))
        self.spread.copy_(coordinates.std(0))

    def forward(self, faces: Tensor, mesh: Tensor, identities: Tensor) -> Tensor:
        """Predict fronts.

        Args:
            faces: (N,3,S,S) RGB in [0,1], FFHQ-aligned, S the network's size.
            mesh: (N,468,3), (x, y, z) in sides of the picture.
            identities: (N,E) identity vectors.

        Returns:
            (N,2,D) float32 Gaussian coordinates: of the style layers below 7, and of the others.

        Raises:
            InputError: another shape.
        """
        size, count = self.config.size, len(faces)
        if faces.shape != (count, 3, size, size) or mesh.shape != (count, POINTS, 3) or len(identities) != count:
            raise InputError(
                f"faces must be (N,3,{size},{size}) with meshes (N,{POINTS},3) and N identity vectors, got "
                f"{tuple(faces.shape)}, {tuple(mesh.shape)} and {tuple(identities.shape)}: align the faces first"
            )
        dtype = self.leave.weight.dtype
        faces = (faces - 0.5).to(dtype)
        seen = [self.body(F.interpolate(faces, (self.config.whole,) * 2, mode="area"))]
        cut = patches(faces, mesh, self.config.patch)
        seen += [pathway(part) for pathway, part in zip(self.local, cut, strict=True)]
        seen.append(self.of_mesh(((mesh - self.mesh_mean) / self.mesh_spread).flatten(1).to(dtype)))
        seen.append(((identities - self.identity_mean) / self.identity_spread).to(dtype))
        found = self.leave(self.fuse(torch.cat(seen, 1))).float().unflatten(1, (2, -1))  # (N, 2, D)
        return self.mean.float() + self.spread.float() * found


def patches(faces: Tensor, mesh: Tensor, size: int) -> list[Tensor]:
    """Cut `PATCHES` where the mesh lies; what is outside repeats the border.

    Args:
        faces: (N,3,S,S), about as fine as the patches.
        mesh: (N,468,3) in sides of the picture.
        size: side of a patch in pixels.

    Returns:
        Four tensors (N,3,size,size).
    """
    cut = []
    for points, share in PATCHES:
        centre = 2 * mesh[:, list(points), :2].mean(1) - 1  # (N, 2) in [-1, 1]
        scale = share * torch.eye(2).to(centre).expand(len(faces), 2, 2)
        grid = F.affine_grid(torch.cat([scale, centre[..., None]], 2), [len(faces), 1, size, size], align_corners=False)
        cut.append(F.grid_sample(faces, grid.to(faces), padding_mode="border", align_corners=False))
    return cut
