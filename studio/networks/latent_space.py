"""The latent space of the generator as data: Gaussian coordinates, directions with a meaning, samples to start from.

No layer is learned; it is a network so that it is saved, checked and moved like one. A latent w comes out of a
LeakyReLU. Undone, the latents are close to a Gaussian (PULSE, arXiv 2003.03808), whose mean and covariance whiten it.
The covariance is nearly singular: a third of its axes vary by less than a tenth, and dividing by their spread would
turn rounding into distance, so that `FLOOR` is added to every variance.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from studio.errors import InputError
from studio.faces.attributes import ATTRIBUTES
from studio.networks.generator import SLOPE
from studio.networks.loading import StrictModel

AGE = "age"
DIRECTIONS = (*ATTRIBUTES, AGE)  # what is measured in the picture, and what is read off the identity vector
READINGS = (AGE, "presentation")  # in years; 0 a man's face, 1 a woman's
FLOOR = 0.01  # variance
THUMB = 16  # px


class LatentSpace(StrictModel):
    """Statistics, directions and a bank of samples of one generator.

    Args:
        dim: length of one latent.
        attributes: names of the directions.
        bank: number of samples.
        embedding_dim: length of the identity vectors in the bank.

    Buffers, all float32 once loaded:
        mean, axes, spread: of the undone latents u: (D,), columns of (D,D), (D,) standard deviations with `FLOOR`.
        radius: (1,) root mean square length of whitened latents; that of the sphere they are searched on.
        directions: (A,D), how far w moves per unit of each attribute.
        attribute_mean, attribute_spread: (A,) over generated faces, in the attribute's unit.
        readings, reading_offsets: (2,E), (2,): `READINGS` as linear functions of an identity vector.
        bank_latents: (K,D) w of samples; bank_thumbs: (K,3,THUMB,THUMB) uint8 RGB; bank_embeddings: (K,E).
    """

    @register_to_config
    def __init__(
        self, dim: int = 512, attributes: tuple[str, ...] = DIRECTIONS, bank: int = 2048, embedding_dim: int = 128
    ) -> None:
        super().__init__()
        count = len(attributes)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("axes", torch.eye(dim))
        self.register_buffer("spread", torch.ones(dim))
        self.register_buffer("radius", torch.full((1,), dim**0.5))
        self.register_buffer("directions", torch.zeros(count, dim))
        self.register_buffer("attribute_mean", torch.zeros(count))
        self.register_buffer("attribute_spread", torch.ones(count))
        self.register_buffer("readings", torch.zeros(len(READINGS), embedding_dim))
        self.register_buffer("reading_offsets", torch.zeros(len(READINGS)))
        self.register_buffer("bank_latents", torch.zeros(bank, dim))
        self.register_buffer("bank_thumbs", torch.zeros(bank, 3, THUMB, THUMB, dtype=torch.uint8))
        self.register_buffer("bank_embeddings", torch.zeros(bank, embedding_dim))

    def forward(self, w: Tensor) -> Tensor:
        """Latents (…,D) to Gaussian coordinates v (…,D), about standard normal."""
        undone = F.leaky_relu(w, 1 / SLOPE) - self.mean.to(w)
        return undone @ self.axes.to(w) / self.spread.to(w)

    def gain(self) -> Tensor:
        """(D,) in [0,1], what share of a step along each coordinate to take: axes that hardly vary hardly move."""
        return (1 - FLOOR / self.spread.square()).clamp_min(0).sqrt()

    def latents(self, v: Tensor) -> Tensor:
        """Gaussian coordinates (…,D) to latents w (…,D)."""
        return F.leaky_relu((v * self.spread.to(v)) @ self.axes.to(v).T + self.mean.to(v), SLOPE)

    def read(self, vectors: Tensor, name: str = AGE) -> Tensor:
        """What identity vectors (…,E) say of `READINGS`: (…) float32, not bounded.

        Age was learned from adults of 36 to 88 and errs by 6 years on average; children are read as adults.
        Presentation is for audits, not a fact about anybody.
        """
        row = READINGS.index(name)
        return vectors.float() @ self.readings[row].float().to(vectors.device) + float(self.reading_offsets[row])

    def at_age(self, vector: Tensor, years: float) -> Tensor:
        """The identity vector (E,) nearest to `vector` that is read as so old."""
        slope = self.readings[READINGS.index(AGE)].to(vector)
        missing = years - float(self.read(vector))
        return vector + missing * slope / slope.square().sum().clamp_min(torch.finfo(torch.float32).tiny)

    def number(self, attribute: str) -> int:
        """Row of a direction.

        Raises:
            InputError: there is none of that name.
        """
        names = list(self.config.attributes)
        if attribute not in names:
            raise InputError(f"a direction must be one of {', '.join(names)}, got {attribute!r}: use one of them")
        return names.index(attribute)

    @torch.no_grad()
    def fit(self, w: Tensor) -> None:
        """Set the Gaussian coordinates from many latents w (N,D), drawn without truncation."""
        u = F.leaky_relu(w.double(), 1 / SLOPE)
        self.mean.copy_(u.mean(0))
        variance, axes = torch.linalg.eigh(torch.cov(u.T))
        spread = (variance.clamp_min(0) + FLOOR).sqrt()
        self.axes.copy_(axes)
        self.spread.copy_(spread)
        self.radius.fill_(float((variance.clamp_min(0) / spread**2).sum().sqrt()))
