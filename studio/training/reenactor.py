"""Training `Reenactor`: to mend what a dense motion warps, and to invent what it uncovers.

- **pixels**: L1 at four sizes; eyes and mouth, which a warp cannot draw, weigh more;
- **detail**: local contrast of each octave, so that nothing is smoothed to be safe;
- **person**: maps of the identity network;
- **critics**: of the whole face and of its components (`studio.training.critic`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from studio import weights
from studio.device import fast_bfloat16
from studio.motion.dense import warp
from studio.networks.identity import IdentityNet
from studio.training import checkpoints
from studio.training.augment import recolour
from studio.training.critic import Adversary, components, whole
from studio.training.losses import energy_loss, identity_loss
from studio.training.steps import StepTrainer, channels_last, generator_of, shards

PIXELS, DETAIL, PERSON, CRITIC = 4.0, 4.0, 1.0, 0.08
FEATURES = 4.0  # how much more eyes and mouth weigh than the rest
WINDOW = 128  # px of a frame that its critic sees in a step; it only knows patches
SPREAD = 9  # px by which their masks grow
GREY = 0.15  # share of the examples without colour, as old photographs are


@dataclass
class ReenactorTrainer(StepTrainer):
    """Trains `Reenactor`.

    Args:
        cache: of `studio train moved`.
        judged: with the critics.
    """

    name: ClassVar[str] = "reenactor"
    cache: Path = field(kw_only=True)
    judged: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.shards = shards(self.cache, "studio train moved")
        self.person = IdentityNet.from_pretrained(weights.path("identity")).requires_grad_(False)
        self.person.to(memory_format=torch.channels_last)
        self.critics = [Adversary("face", whole, "cpu", 1), Adversary("parts", components, "cpu", 2)]

    def examples(self, step: int) -> dict[str, Tensor]:
        """Examples of a step, float32, in another light, some mirrored."""
        rng = generator_of(step)
        chosen = torch.randint(len(self.shards) * len(self.shards[0]["still"]), (self.batch,), generator=rng).tolist()
        size = len(self.shards[0]["still"])
        rows = {
            name: torch.stack([self.shards[i // size][name][i % size] for i in chosen]).float()
            for name in self.shards[0]
        }
        both = torch.cat([rows["still"], rows["target"]], 3) / 255  # one light for both pictures of an example
        both = recolour(both, rng)
        grey = torch.rand(self.batch, 1, 1, 1, generator=rng) < GREY
        rows["still"], rows["target"] = torch.where(grey, both.mean(1, keepdim=True), both).chunk(2, 3)
        mirrored = torch.rand(self.batch, 1, 1, 1, generator=rng) < 0.5
        rows = {name: torch.where(mirrored, part.flip(3), part) for name, part in rows.items()}
        across = torch.where(mirrored, 1 - rows["source"][:, :1], rows["source"][:, :1])
        return rows | {"source": torch.cat([across, rows["source"][:, 1:]], 1)}

    def losses(self, examples: Any) -> dict[str, Tensor]:
        """What the drawn frames cost."""
        still, target, depth, geometry = channels_last([examples[n] for n in ("still", "target", "depth", "geometry")])
        source = examples["source"]
        warped = warp(still, source).clamp(0, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16("cpu")):
            drawn, mask = self.net(warped, geometry, source, self.net.look(still, depth))
        drawn = torch.lerp(warped, drawn, mask)
        size = drawn.shape[-1]
        asked = F.interpolate(examples["weight"], (size, size), mode="bilinear", align_corners=False)
        features = F.max_pool2d(geometry[:, 2:].amax(1, keepdim=True), SPREAD, 1, SPREAD // 2)
        features = F.interpolate(features, (size, size), mode="bilinear", align_corners=False)
        weight = asked * (1 + FEATURES * features)
        shown, wanted = (x * asked + warped * (1 - asked) for x in (drawn, target))
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16("cpu")):
            person = identity_loss(self.person, shown, wanted)
        terms = {
            "pixels": PIXELS * sum((F.avg_pool2d((drawn - target) * weight, k)).abs().mean() for k in (1, 2, 4, 8)) / 4,
            "detail": DETAIL * energy_loss(shown, wanted),
            "person": PERSON * person.float(),
        }
        if self.judged:
            reference = sum(terms.values())
            y, x = torch.randint(size - WINDOW + 1, (2,), generator=generator_of(self.step)).tolist()
            self.critics[0].view = lambda faces: faces[:, :, y : y + WINDOW, x : x + WINDOW]
            terms["critics"] = CRITIC * sum(critic.loss(shown, reference) for critic in self.critics)
            self.seen = shown.detach(), wanted.detach()
        return terms

    def update(self) -> dict[str, float]:
        """One step of the network and one of the critics; returns the losses."""
        told = super().update()
        if self.judged:
            told["hinge"] = sum(critic.learn(self.seen) for critic in self.critics) / len(self.critics)
        return told

    def save(self) -> None:
        """Also the critics."""
        super().save()
        if self.judged:
            checkpoints.save(self.folder / "critics", dict(self.critics[0].tensors() | self.critics[1].tensors()), {})

    def resume(self) -> None:
        """Continue from `folder/checkpoint`."""
        super().resume()
        if self.judged:
            tensors, _ = checkpoints.load(self.folder / "critics")
            for critic in self.critics:
                critic.load(tensors)
