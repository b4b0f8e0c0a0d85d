"""The adversarial side of stage 2: small critics that tell drawn faces from photographs by their patches.

The other losses compare a drawn face with one right answer. What they leave free (hair, pores, what lies between two
pixels) a network fills with whatever costs them least, fine grids for instance; a critic only knows what faces look
like at that scale, and so takes exactly that away. One may see the whole face, another its components alone (the facial
component loss of GFP-GAN, arXiv 2101.04061, equation 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from studio.training import checkpoints

CHANNELS = (48, 96, 192)
LEARNING_RATE = 4e-4
ALONE = 60  # updates before its verdict counts: at first it knows nothing
# Eyes and mouth of an FFHQ-aligned face: left edge, top and side, in shares of the picture's.
WINDOWS = ((0.23, 0.32, 0.25), (0.52, 0.32, 0.25), (0.36, 0.63, 0.28))
EYES = 6  # channels of `components` that are eyes: of a 256 px face, the very pixels


def whole(faces: Tensor) -> Tensor:
    """What a critic of the whole face sees: (N,3,S,S) as it is."""
    return faces


def components(faces: Tensor) -> Tensor:
    """What a critic of the components sees: both eyes and the mouth beside each other as channels.

    Args:
        faces: (N,3,S,S), FFHQ-aligned.

    Returns:
        (N,9,S/4,S/4); the eyes are judged together, so that they also have to go together.
    """
    side = faces.shape[2]
    parts = []
    for x, y, share in WINDOWS:
        x0, y0, cut = (round(number * side) for number in (x, y, share))
        part = faces[:, :, y0 : y0 + cut, x0 : x0 + cut]
        parts.append(F.interpolate(part, (side // 4, side // 4), mode="bilinear", antialias=True))
    return torch.cat(parts, 1)


class PatchCritic(nn.Module):
    """One score per patch of about 46 px, one every 8 px (PatchGAN, arXiv 1611.07004), with spectral normalisation.

    Args:
        channels_in: of what it sees.
        channels: of its convolutions.
    """

    def __init__(self, channels_in: int = 3, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels_in
        for width in channels:
            layers += [spectral_norm(nn.Conv2d(before, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
            before = width
        layers += [spectral_norm(nn.Conv2d(before, before, 3, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(before, 1, 1)))

    def forward(self, faces: Tensor) -> Tensor:
        """(N,C,S,S) in [0,1] -> scores (N,1,S/8,S/8), higher for photographs."""
        return self.layers(faces * 2 - 1)

    def maps(self, faces: Tensor) -> list[Tensor]:
        """(N,C,S,S) in [0,1] -> what each layer but the last makes of it."""
        found, x = [], faces * 2 - 1
        for layer in list(self.layers.children())[:-1]:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                found.append(x)
        return found


class Adversary:
    """A critic with its optimizer.

    Args:
        name: of its tensors in a checkpoint.
        view: what of the faces it sees, `whole` or `components`.
        device: "cpu" or "cuda".
        seed: of its first weights.
    """

    def __init__(self, name: str, view: Callable[[Tensor], Tensor], device: str, seed: int) -> None:
        self.name, self.view = name, view
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = PatchCritic(view(torch.zeros(1, 3, 16, 16)).shape[1])
        self.net.to(device, memory_format=torch.channels_last)
        self.device = device
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=LEARNING_RATE, betas=(0.5, 0.9), weight_decay=0)
        self.updates = 0

    def loss(self, drawn: Tensor, reference: Tensor) -> Tensor:
        """What the drawn faces lack in the critic's eyes, scaled so that its pull is that of another loss.

        The gradient that reaches the picture gets the size of the reference's (VQGAN, arXiv 2012.09841, equation 7),
        so that one weight serves a critic that is new and one that is sure.

        Args:
            drawn: (N,3,S,S) RGB, part of the graph.
            reference: a loss of the same pictures.

        Returns:
            A scalar; zero as long as the critic is new.
        """
        if self.updates < ALONE:
            return drawn.new_zeros(())
        self.net.requires_grad_(False)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            wanting = -self.net(self.view(drawn)).float().mean()
        self.net.requires_grad_(True)
        sizes = [torch.autograd.grad(x, drawn, retain_graph=True)[0].norm() for x in (reference, wanting)]
        return wanting * (sizes[0] / sizes[1].clamp_min(1e-8)).clamp(max=1e3)

    def matching(self, drawn: Tensor, clean: Tensor) -> Tensor:
        """How far the critic's maps of drawn faces are from the clean ones' (pix2pixHD, arXiv 1711.11585, equation 4).

        Args:
            drawn: (N,3,S,S) RGB, part of the graph.
            clean: as many, the faces that they should be.

        Returns:
            The L1 of each layer in shares of its mean size, their mean.
        """
        self.net.requires_grad_(False)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            found = self.net.maps(self.view(drawn))
            with torch.no_grad():
                wanted = self.net.maps(self.view(clean))
        self.net.requires_grad_(True)
        pairs = [(f.float(), w.float()) for f, w in zip(found, wanted, strict=True)]
        return torch.stack([(f - w).abs().mean() / w.abs().mean().clamp_min(1e-6) for f, w in pairs]).mean()

    def learn(
        self, *pairs: tuple[Tensor, Tensor], average: Callable[[Iterable[nn.Parameter]], None] | None = None
    ) -> float:
        """One update of the critic, hinge loss; returns it (2 at first, 0 when it is never wrong).

        Args:
            pairs: drawn faces (N,3,S,S) RGB, detached, and as many photographs; one pair for each batch of the step.
            average: makes the gradients of several processes one.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for drawn, clean in pairs:
            with torch.autocast(self.device, dtype=torch.bfloat16):
                fake, real = self.net(self.view(torch.cat([drawn, clean]))).float().chunk(2)
            loss = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / len(pairs)
            loss.backward()
            total += loss.item()
        if average:
            average(self.net.parameters())
        self.optimizer.step()
        self.updates += 1
        return total

    # ---- checkpoints

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next update depends on, for `checkpoints.save`."""
        named = {f"{self.name}.{name}": value for name, value in self.net.state_dict().items()}
        named[f"{self.name}-updates"] = torch.tensor(self.updates)
        return named | checkpoints.moments(self.optimizer, f"{self.name}-optimizer")

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put what `tensors` named back."""
        prefix = f"{self.name}."
        self.net.load_state_dict({n[len(prefix) :]: x for n, x in tensors.items() if n.startswith(prefix)})
        self.updates = int(tensors[f"{self.name}-updates"])
        checkpoints.load_moments(self.optimizer, tensors, f"{self.name}-optimizer")
