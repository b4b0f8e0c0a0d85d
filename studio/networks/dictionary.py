"""Component dictionaries: sharp eyes, noses and mouths, as the generator's own maps know them.

DFDNet (arXiv 2008.00418, section 3.3) keeps maps of eyes, nose and mouth from sharp photographs, finds the atom that
is most like a damaged face's component, and hands over its detail as far as a predicted confidence says. Here the
atoms are generated faces. One is kept as its latent, a kilobyte, and the generator draws its maps when the network is
put to use; each of the four components finds its own atom among all faces.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from studio.networks.generator import Generator
from studio.networks.start import silent

# Where the components lie on an FFHQ-aligned face, in cells of a 32 px map: x0, y0, x1, y1 around the middle 80 % of
# the places that the mesh gives them on 96 generated faces. Right and left are the person's.
COMPONENTS = {
    "right_eye": (8, 11, 15, 17),
    "left_eye": (17, 11, 24, 17),
    "nose": (12, 16, 20, 22),
    "mouth": (11, 21, 21, 27),
}
GRID = 32
LEVELS = 2  # maps that receive detail: after blocks 3 and 4, of 32 and 64 px


class ComponentDictionary(nn.Module):
    """Atoms, and how far to trust them.

    Args:
        atoms: number of faces in the dictionary.
        channels: of the maps, one for each level.
        style_dim: length of a latent.
        hidden: channels between the two convolutions of a confidence.

    The buffer `latents` (atoms, style_dim) is what is saved; `draw` makes the maps of it.
    """

    latents: Tensor

    def __init__(self, atoms: int, channels: tuple[int, ...], style_dim: int, hidden: int = 32) -> None:
        super().__init__()
        self.register_buffer("latents", torch.zeros(atoms, style_dim))
        self.confidence = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, width, 1)) for width in channels
        )
        for layers in self.confidence:  # at first nothing is handed over
            silent(list(layers.children())[-1])
        for level in range(len(channels)):
            for name in COMPONENTS:
                self.register_buffer(f"{name}_{level}", None, persistent=False)

    @property
    def drawn(self) -> bool:
        """Whether `draw` has been called."""
        return getattr(self, f"{next(iter(COMPONENTS))}_0") is not None

    @torch.no_grad()
    def draw(self, generator: Generator, start: int) -> None:
        """Make the atoms' maps: of mean 0 and spread 1 in every channel, (atoms,C,h,w) for each component and level.

        Args:
            generator: on the device where the network will run.
            start: blocks before the first level.
        """
        parts: dict[str, list[Tensor]] = {}
        for latent in self.latents.to(generator.device, generator.dtype).split(1):
            w = generator.slots(latent)
            x = generator.features(w, start)
            for level in range(len(self.confidence)):
                if level:
                    x = generator.run_blocks(x, w, start + level - 1, start + level)
                for name, box in COMPONENTS.items():
                    parts.setdefault(f"{name}_{level}", []).append(standardised(cut(x, box).float())[0])
        for name, maps in parts.items():
            self.register_buffer(name, torch.cat(maps).to(self.latents.dtype).contiguous(), persistent=False)

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Hand over detail to the components of a map (DFDNet's dictionary feature transfer, equations 2 to 5).

        Each component's atoms take on the mean and spread of its channels (AdaIN), the one with the largest inner
        product is chosen, and where the confidence is 1 it replaces what is there. Towards the edge of its box a
        component fades out.

        Args:
            x: (N,C,H,H), the generator's map at that level.
            level: 0 for 32 px, 1 for 64 px.

        Returns:
            (N,C,H,H), of the dtype of x.
        """
        change = torch.zeros_like(x)
        for name, box in COMPONENTS.items():
            part = cut(x, box).to(self.latents.dtype)
            normal, mean, spread = standardised(part)
            atoms = getattr(self, f"{name}_{level}")
            best = (normal.detach().flatten(1) @ atoms.flatten(1).T).argmax(1)
            difference = atoms[best] * spread + mean - part
            moved = self.confidence[level](difference) * difference * window(difference)
            cut(change, box).add_(moved.to(x.dtype))
        return x + change


def cut(x: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """The part (N,C,h,w) of a map (N,C,H,H) inside a box in cells of a `GRID` map; a view."""
    x0, y0, x1, y1 = (edge * x.shape[3] // GRID for edge in box)
    return x[:, :, y0:y1, x0:x1]


def standardised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (N,C,h,w) of mean 0 and spread 1 in every channel, and that mean and spread (N,C,1,1)."""
    mean = x.mean((2, 3), keepdim=True)
    spread = (x - mean).square().mean((2, 3), keepdim=True).add(1e-4).sqrt()
    return (x - mean) / spread, mean, spread


def window(x: Tensor) -> Tensor:
    """(1,1,h,w) of x's size: 1 in the middle, falling over an eighth of each side."""
    edges = []
    for size in x.shape[2:]:
        middle = (torch.arange(size, device=x.device, dtype=x.dtype) + 0.5) / size
        edges.append((8 * torch.minimum(middle, 1 - middle)).clamp(max=1))
    return (edges[0][:, None] * edges[1])[None, None]
