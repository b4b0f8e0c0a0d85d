"""The adversarial side of stage 2: a small critic that sees patches and tells drawn faces from photographs.

The other losses compare a drawn face with one right answer. What they leave free (hair, pores, what lies between two
pixels) a network fills with whatever costs them least, fine grids for instance; the critic only knows what faces look
like at that scale, and so takes exactly that away.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from studio.training import checkpoints

CHANNELS = (48, 96, 192)
LEARNING_RATE = 4e-4
ALONE = 60  # updates before its verdict counts: at first it knows nothing


class PatchCritic(nn.Module):
    """One score per patch of about 46 px, one every 8 px (PatchGAN, arXiv 1611.07004), with spectral normalisation.

    Args:
        channels: of its convolutions.
    """

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in channels:
            layers += [spectral_norm(nn.Conv2d(before, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
            before = width
        layers += [spectral_norm(nn.Conv2d(before, before, 3, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(before, 1, 1)))

    def forward(self, faces: Tensor) -> Tensor:
        """(N,3,S,S) RGB in [0,1] -> scores (N,1,S/8,S/8), higher for photographs."""
        return self.layers(faces * 2 - 1)


class Adversary:
    """A critic with its optimizer.

    Args:
        device: "cpu" or "cuda".
        seed: of its first weights.
    """

    def __init__(self, device: str, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = PatchCritic()
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
            wanting = -self.net(drawn).float().mean()
        self.net.requires_grad_(True)
        sizes = [torch.autograd.grad(x, drawn, retain_graph=True)[0].norm() for x in (reference, wanting)]
        return wanting * (sizes[0] / sizes[1].clamp_min(1e-8)).clamp(max=1e3)

    def learn(self, drawn: Tensor, clean: Tensor) -> float:
        """One update of the critic, hinge loss; returns it (2 at first, 0 when it is never wrong).

        Args:
            drawn: (N,3,S,S) RGB, detached.
            clean: (N,3,S,S) RGB.
        """
        with torch.autocast(self.device, dtype=torch.bfloat16):
            fake, real = self.net(torch.cat([drawn, clean])).float().chunk(2)
        loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        return loss.item()

    # ---- checkpoints

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next update depends on, for `checkpoints.save`."""
        named = {f"critic.{name}": value for name, value in self.net.state_dict().items()}
        named["critic-updates"] = torch.tensor(self.updates)
        return named | checkpoints.moments(self.optimizer, "critic-optimizer")

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put what `tensors` named back."""
        self.net.load_state_dict({n[len("critic.") :]: x for n, x in tensors.items() if n.startswith("critic.")})
        self.updates = int(tensors["critic-updates"])
        checkpoints.load_moments(self.optimizer, tensors, "critic-optimizer")
