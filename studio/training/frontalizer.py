"""Training the two-pathway network (`Frontalizer`) on pairs of a turned face and its front.

The terms of TP-GAN (arXiv 1704.04086, its synthesis loss), for latents instead of pixels in most steps, because
drawing a face with gradients takes longer than a whole step without:

- **latent**: squared error of the front's latents, over their variance; stands for the pixels of most steps;
- **person**: squared distance of what `LatentReader` reads in the predicted structure to the front's identity vector;
- **critic**: a small network tells predicted coordinates from real ones (as for the encoder of e4e, arXiv 2102.02766);
  squared errors alone ask for the mean of all fronts that fit, which is nobody;
- every `drawn_every`th step some faces are drawn with gradients: **pixels**, **symmetry** (the front against its
  mirror image) and **identity** (descriptors of the drawn and the true front).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from studio import weights
from studio.degradations import degrade
from studio.device import fast_bfloat16
from studio.errors import InputError
from studio.latents.prior import render
from studio.networks.frontalizer import Frontalizer
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.latent_reader import LatentReader
from studio.networks.latent_space import LatentSpace
from studio.training import checkpoints
from studio.training.augment import recolour
from studio.training.data import expand_latents
from studio.training.flow import blur
from studio.training.losses import coarse_loss, descriptor_loss
from studio.training.steps import Loop
from studio.training.turned import TurnedFaces

AVERAGE = 0.998
WARM_UP = 100
ALONE = 100  # updates of the critic before its verdict counts
RECIPES = ("old_photo", "training_mild")  # of the first and the second third of a batch; the last stays as it is
MESH_NOISE = 0.003  # sides of the picture; the mesh of a photo is that uncertain
DRAWN_SIZE = 256
FACE = (slice(64, 216), slice(64, 192))  # rows and columns of a drawn face that symmetry looks at
LATENT, PERSON, CRITIC = 1.0, 2.0, 0.05
PIXELS, SYMMETRY, IDENTITY = 4.0, 1.0, 1.0
TERMS = ("person", "critic", "pixels", "symmetry", "identity")  # what can be left out, to see what it is worth


@dataclass(frozen=True)
class Drawing:
    """What draws predicted fronts and judges their pictures, frozen; the quick head at 256 px."""

    generator: Generator
    head: ImageHead
    identity: IdentityNet

    @classmethod
    def from_pretrained(cls) -> Drawing:
        """With the weights of the store, on the CPU; generator and head in bfloat16.

        Raises:
            MissingWeightsError: not here and could not be fetched.
        """
        parts = (
            Generator.from_pretrained(weights.path("generator"), dtype=torch.bfloat16),
            ImageHead.from_pretrained(weights.path("head_256"), dtype=torch.bfloat16),
            IdentityNet.from_pretrained(weights.path("identity")),
        )
        return cls(*(part.to(memory_format=torch.channels_last) for part in parts))


class LatentCritic(nn.Module):
    """One score for the coordinates of a face (N,2,D): higher for real ones."""

    def __init__(self, dim: int, width: int = 256) -> None:
        super().__init__()
        sizes = (2 * dim, width, width)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(sizes):
            layers += [spectral_norm(nn.Linear(before, after)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Linear(width, 1)))

    def forward(self, coordinates: Tensor) -> Tensor:
        """(N,2,D) Gaussian coordinates -> (N,1)."""
        return self.layers(coordinates)


@dataclass
class FrontalTrainer(Loop):
    """The network, its running average, its critic, and the loop that trains them.

    Args:
        turned: pictures and their fronts.
        space: the Gaussian coordinates.
        reader: reads identities in latents.
        folder: where checkpoint, log and the averaged network go.
        drawing: draws predicted fronts; None leaves the drawn terms out.
        steps: of the whole training; the learning rate falls to zero by then.
        batch: pictures in one step.
        drawn: of them are drawn, every `drawn_every`th step.
        drawn_every: see there.
        learning_rate: of AdamW, after a warm-up.
        weight_decay: of AdamW.
        seed: step k draws from seed and k alone, so that resuming is exact.
        without: of `TERMS`, those that are left out.
        config: of `Frontalizer`, what differs from its defaults.
        report: receives one line of text at a time.
    """

    save_seconds: ClassVar[float] = 120
    turned: TurnedFaces
    space: LatentSpace
    reader: LatentReader
    folder: Path
    drawing: Drawing | None = None
    steps: int = 2400
    batch: int = 48
    drawn: int = 2
    drawn_every: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    seed: int = 0
    without: tuple[str, ...] = ()
    config: dict[str, int | tuple[int, ...]] = field(default_factory=dict)
    report: Callable[[str], None] = print
    step: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in self.without:
            if name not in TERMS:
                raise InputError(f"without must be of {', '.join(TERMS)}, got {name!r}: choose one of them")
        self.folder.mkdir(parents=True, exist_ok=True)
        held = self.turned.held[self.turned.person]
        self.kept, self.measured = ((~held).nonzero()[:, 0], held.nonzero()[:, 0])
        with torch.no_grad():
            self.coordinates = self.space(self.turned.latents)  # (P, 2, D)
        dim, identity_dim = self.coordinates.shape[2], self.turned.descriptors.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.net = Frontalizer(latent_dim=dim, identity_dim=identity_dim, **self.config)
            self.critic = LatentCritic(dim)
        people = self.turned.person[self.kept]
        self.net.fit(self.turned.mesh[self.kept].float(), self.turned.descriptors[self.kept], self.coordinates[people])
        self.variance = float(self.turned.latents[people].var(0).mean())
        self.net.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay
        )
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), lr=4e-4, betas=(0.5, 0.9), weight_decay=0)
        for judge in (self.reader, *vars(self.drawing).values()) if self.drawing else (self.reader,):
            judge.requires_grad_(False)

    # ---- one step

    def examples(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Step number `step`: faces (N,3,S,S), two thirds of them damaged, meshes, vectors, people (N,)."""
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        chosen = self.kept[torch.randint(len(self.kept), (self.batch,), generator=rng)]
        faces = self.turned.faces[chosen].float() / 255
        third = self.batch // 3
        for number, recipe in enumerate(RECIPES) if third else ():
            rows = slice(number * third, (number + 1) * third)
            faces[rows] = photographed(faces[rows], recipe, rng)
        mesh = self.turned.mesh[chosen].float()
        mesh = mesh + MESH_NOISE * torch.randn(mesh.shape, generator=rng)
        return faces, mesh, blur(self.turned.descriptors[chosen], rng), self.turned.person[chosen]

    def losses(self, step: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Weighted losses of a step, and predicted and real coordinates (N,2,D), both without a graph."""
        faces, mesh, identities, people = self.examples(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16("cpu")):
            found = self.net(faces.contiguous(memory_format=torch.channels_last), mesh, identities)
        latents = self.space.latents(found)
        person = self.reader(latents[:, 0]) - self.turned.fronts[people]
        terms = {
            "latent": LATENT * F.mse_loss(latents, self.turned.latents[people]) / self.variance,
            "person": PERSON * person.square().sum(1).mean(),
        }
        if self.step >= ALONE:
            self.critic.requires_grad_(False)
            terms["critic"] = -CRITIC * self.critic(found).mean()
            self.critic.requires_grad_(True)
        if self.drawing and step % self.drawn_every == self.drawn_every - 1:
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + 500_000_000 + step)
            # The last third is not damaged, so that its colours can be asked for.
            terms |= drawn_losses(self.drawing, latents[-self.drawn :], self.turned.latents[people[-self.drawn :]], rng)
        terms = {name: term for name, term in terms.items() if name not in self.without}
        return terms, found.detach(), self.coordinates[people]

    def update(self) -> dict[str, float]:
        """One step of the network and one of the critic; returns the weighted losses."""
        warm = min(1.0, (self.step + 1) / WARM_UP)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1, self.step / self.steps)))
        terms, found, real = self.losses(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        hinge = F.relu(1 - self.critic(real)).mean() + F.relu(1 + self.critic(found)).mean()
        self.critic_optimizer.zero_grad(set_to_none=True)
        hinge.backward()
        self.critic_optimizer.step()
        self.step += 1
        share = min(AVERAGE, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(value, 1 - share)
        return {name: float(term.detach()) for name, term in terms.items()} | {"hinge": float(hinge.detach())}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The averaged network on people that no step sees: error over variance, and identity distance as read."""
        people, parts = self.turned.person[self.measured], []
        for rows in self.measured.split(64):
            faces, mesh = self.turned.faces[rows].float() / 255, self.turned.mesh[rows].float()
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16("cpu")):
                parts.append(self.average(faces, mesh, self.turned.descriptors[rows]))
        latents = self.space.latents(torch.cat(parts))
        error = (latents - self.turned.latents[people]).square().mean((0, 2)) / self.variance
        read = self.reader(latents[:, 0])
        return {
            "structure": float(error[0]),
            "texture": float(error[1]),
            "person": float((read - self.turned.fronts[people]).norm(dim=1).mean()),
        }

    # ---- the loop

    def told(self, means: dict[str, float]) -> str:
        """As `Loop.told`: losses, and what the people say that no step sees."""
        losses, held = (
            "  ".join(f"{name} {value:.3f}" for name, value in found.items()) for found in (means, self.measure())
        )
        return f"step {self.step}  {losses}  held out: {held}  {self.seconds:.0f} s"

    # ---- files

    def parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by its prefix."""
        return {"net.": self.net, "average.": self.average, "critic.": self.critic}

    def save(self) -> None:
        """Checkpoint, and the averaged network as the folder `frontalizer`."""
        tensors = {
            prefix + name: value for prefix, part in self.parts().items() for name, value in part.state_dict().items()
        }
        tensors |= checkpoints.moments(self.optimizer)
        tensors |= checkpoints.moments(self.critic_optimizer, "critic-optimizer")
        checkpoints.save(self.folder / "checkpoint", tensors, {"step": self.step, "seconds": self.seconds})
        self.average.save_pretrained(self.folder / "frontalizer")

    def resume(self) -> None:
        """Continue from `folder/checkpoint`."""
        tensors, state = checkpoints.load(self.folder / "checkpoint")
        self.step, self.seconds = state["step"], state["seconds"]
        for prefix, part in self.parts().items():
            part.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        checkpoints.load_moments(self.optimizer, tensors)
        checkpoints.load_moments(self.critic_optimizer, tensors, "critic-optimizer")


def photographed(faces: Tensor, recipe: str, rng: torch.Generator) -> Tensor:
    """Faces (N,3,S,S) in another light, damaged; those that are monochrome then in grey, as the pipeline shows them."""
    damaged, drawn = degrade(recolour(faces, rng), recipe, rng)
    grey = torch.tensor([parameters["tone"] != "colour" for parameters in drawn]).view(-1, 1, 1, 1)
    return torch.where(grey, damaged.mean(1, keepdim=True).expand_as(damaged), damaged)


def drawn_losses(drawing: Drawing, found: Tensor, wanted: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
    """Weighted terms of pictures, with gradients through the generator.

    Args:
        drawing: see there.
        found: (N,2,D) predicted latents.
        wanted: (N,2,D) those of the true fronts.
        rng: of the chips that the identity network sees.
    """
    slots = drawing.generator.num_slots

    def draw(latents: Tensor) -> Tensor:
        return render(drawing.generator, expand_latents(latents)[:, :slots], DRAWN_SIZE, drawing.head)

    with torch.no_grad():
        front = draw(wanted).clamp(0, 1)
    picture = draw(found)
    return {
        "pixels": PIXELS * coarse_loss(picture, front),
        "symmetry": SYMMETRY * symmetry_loss(picture),
        "identity": IDENTITY * descriptor_loss(drawing.identity, picture, front, rng),
    }


def symmetry_loss(pictures: Tensor) -> Tensor:
    """L1 between the brightness of fronts (N,3,256,256) and of their mirror images, inside the face, 4 px cells."""
    luma = F.avg_pool2d(pictures[:, :, FACE[0], FACE[1]].mean(1, keepdim=True), 4)
    return (luma - luma.flip(3)).abs().mean()
