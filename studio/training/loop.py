"""The training loop of the restorer: one for CPU and CUDA, one process and several, resumable to the step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio.degradations import degrade
from studio.errors import InputError
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.mesh import FaceMesh
from studio.networks.restorer import START_BLOCK, Restored, Restorer, draw_prior
from studio.tone import luma
from studio.training import checkpoints
from studio.training.augment import recolour, warp
from studio.training.critic import EYES, Adversary, components, whole
from studio.training.data import STRUCTURE_SLOTS, SyntheticFaces, as_luma, expand_latents
from studio.training.fusion import fuse
from studio.training.losses import (
    coarse_loss,
    consistency_loss,
    descriptor_loss,
    energy_loss,
    estimate_loss,
    feature_loss,
    grid_loss,
    identity_loss,
    landmark_loss,
)
from studio.training.presets import Preset
from studio.training.team import Team

SAVE_SECONDS = 180
LOG_STEPS = 50
FIDELITY = 0.5  # of the joined picture that the losses look at, the pipeline's default
SLOW_TO_LEARN = ("to_styles.", "to_fine.", "dictionary.")  # parts of the restorer whose last layers begin at zero
REAL_WARP = 0.5  # of real faces: there are few, and they should stay as they are more or less


@dataclass
class Batch:
    """One step's data: damaged and clean faces, generated ones first, and the latents of those that are unchanged.

    The last `old` faces are old photographs: their `clean` is the photograph as it has come down to us.
    """

    damaged: Tensor  # (N,3,S,S) float32 [0,1]
    clean: Tensor  # (N,3,S,S) float32 [0,1]
    latents: Tensor  # (M,2,512), M <= N: of the first M faces
    old: int = 0
    number: int = 0  # over the whole training


@dataclass
class Trainer:
    """Everything a training holds, and its loop in `run`.

    Old photographs have no clean version. Of them the network learns what can be told from the photograph itself: who
    it is, where the mesh's points lie, and that a restoration, shrunk, is the photograph again; half of them it sees
    damaged further, the others as they are. The critics see their restorations among the others.

    Args:
        preset: what to train.
        restorer: float32, on `device`; changed in place.
        generator: frozen; run in bfloat16.
        identity: frozen identity network.
        synthetic: cached generated faces.
        real: (R,3,S,S) uint8 or None.
        folder: where checkpoints, samples and the log go.
        head: frozen image head; draws the prior.
        mesh: frozen face mesh.
        device: "cpu" or "cuda".
        report: receives one line of text at a time.
        old: (O,3,S,S) uint8, old photographs, or None.
        accumulate: batches of this process in a step; more are as larger batches that would not fit into memory.
    """

    preset: Preset
    restorer: Restorer
    generator: Generator
    identity: IdentityNet
    synthetic: SyntheticFaces
    real: Tensor | None
    folder: Path
    head: ImageHead
    mesh: FaceMesh
    device: str = "cpu"
    report: Callable[[str], None] = print
    old: Tensor | None = None
    accumulate: int = 1
    step: int = 0
    seconds: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        preset = self.preset
        self.team = Team(self.device, self.accumulate)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.restorer.to(self.device, memory_format=torch.channels_last).train()
        self.generator.to(self.device, torch.bfloat16).eval().requires_grad_(False)
        self.head.to(self.device, torch.bfloat16).eval().requires_grad_(False)
        for judge in (self.identity, self.mesh):
            judge.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.parameter_groups(), lr=preset.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        self.restorer.prepare(self.generator)
        self.average = {name: value.detach().clone() for name, value in self.restorer.state_dict().items()}
        views = {
            "adversarial": (whole, preset.adversarial_weight),
            "components": (components, preset.components_weight),
        }
        self.critics = {
            name: Adversary(name, view, self.device, preset.seed) for name, (view, weight) in views.items() if weight
        }
        self.drawn: Tensor | None = None  # the faces of the last batch, for the critics

    def parameter_groups(self) -> list[dict]:
        """For the optimizer: the restorer's parameters, and those with `added_rate`; freezes what is not trained."""
        added: dict[bool, list] = {False: [], True: []}
        for name, parameter in self.restorer.named_parameters():
            if not name.startswith(self.preset.trained):
                parameter.requires_grad_(False)
                continue
            added[name.startswith(SLOW_TO_LEARN)].append(parameter)
        times = {False: 1.0, True: self.preset.added_rate}
        return [{"params": added[slow], "times": times[slow]} for slow in added if added[slow]]

    @property
    def images(self) -> int:
        """Faces seen so far, by all processes."""
        return self.step * self.team.together * self.preset.batch

    # ---- data

    def load(self, step: int) -> list[Batch]:
        """The batches of this process in a step."""
        return [self.load_batch(number) for number in self.team.numbers(step)]

    def load_batch(self, number: int) -> Batch:
        """One batch, a function of the preset's seed, its number and the data alone."""
        preset = self.preset
        rng = torch.Generator().manual_seed(preset.seed * 1_000_003 + number)
        real_count = round(preset.batch * preset.real_share) if self.real is not None else 0
        old_count = round(preset.batch * preset.old_share) if self.old is not None else 0
        warped_count = round(preset.batch * preset.warped_share)
        clean, latents = self.synthetic.batch(
            torch.randint(len(self.synthetic), (preset.batch - real_count - old_count,), generator=rng)
        )
        plain_count = len(clean) - warped_count
        changed = [clean[:plain_count]]
        if warped_count:
            changed.append(recolour(warp(clean[plain_count:], rng), rng))
        for photos, count in ((self.real, real_count), (self.old, old_count)):
            if count:
                faces = flipped(photos[torch.randint(len(photos), (count,), generator=rng)].float() / 255, rng)
                changed.append(warp(faces, rng, REAL_WARP) if preset.warped_share else faces)
        clean, latents = torch.cat(changed), latents[:plain_count]
        damaged, drawn = degrade(clean, preset.recipe, rng)
        if old_count:
            as_it_is = torch.rand(old_count, 1, 1, 1, generator=rng) < 0.5
            damaged[-old_count:] = torch.where(as_it_is, clean[-old_count:], damaged[-old_count:])
        # A monochrome photo is restored by its luma alone, so that is what the network is shown and asked for.
        grey = torch.tensor([parameters["tone"] != "colour" for parameters in drawn])
        grey[len(grey) - old_count :] = True
        damaged, clean = (as_luma(x, grey) for x in (damaged, clean))
        return Batch(damaged, clean, latents, old_count, number)

    @torch.no_grad()
    def targets(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised (features, latent) that the generator itself has for these latents."""
        w = expand_latents(latents).to(self.device)
        features = self.generator.features(w[:, : self.generator.num_slots].bfloat16(), START_BLOCK).float()
        net = self.restorer
        return (features - net.features_mean) / net.features_std, (
            w[:, STRUCTURE_SLOTS] - net.latent_mean
        ) / net.latent_std

    @torch.no_grad()
    def measure_targets(self, count: int = 512) -> None:
        """Fill the restorer's normalisation buffers from the first cached faces."""
        latents = self.synthetic.latents[:count]
        w = expand_latents(latents).to(self.device)
        features = torch.cat([self.generator.features(part.bfloat16(), START_BLOCK).float() for part in w.split(16)])
        net = self.restorer
        net.features_mean.copy_(features.mean((0, 2, 3), keepdim=True))
        net.features_std.copy_(features.std((0, 2, 3), keepdim=True) + 1e-4)
        net.latent_mean.copy_(self.synthetic.latents[:, 1].mean(0, keepdim=True))
        net.latent_std.copy_(self.synthetic.latents[:, 1].std(0, keepdim=True) + 1e-4)
        for name in ("features_mean", "features_std", "latent_mean", "latent_std"):
            self.average[name] = getattr(net, name).clone()

    # ---- one step

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses of one batch by name; their sum is minimised."""
        preset, count = self.preset, len(batch.latents)
        damaged = batch.damaged.to(self.device).contiguous(memory_format=torch.channels_last)
        clean = batch.clean.to(self.device)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            raw = self.restorer.normalised(damaged)
        parts = self.restorer.measured(raw, damaged)
        new = len(clean) - batch.old  # faces whose clean version is known
        true_features, true_latent = self.targets(batch.latents)
        found = {
            "features": preset.features_weight * feature_loss(raw.features[:count].float(), true_features),
            "latent": preset.latent_weight * (raw.latent[:count].float() - true_latent).square().mean(),
            "estimate": preset.estimate_weight * estimate_loss(parts.estimate[:new], clean[:new]),
        }
        if preset.identity_weight and self.images >= preset.identity_from:
            with torch.autocast(self.device, dtype=torch.bfloat16):
                found["identity"] = preset.identity_weight * identity_loss(
                    self.identity, parts.estimate[:new], clean[:new]
                )
        if preset.prior_weight:
            found |= self.prior_losses(parts, damaged, clean, new, batch.latents, batch.number)
        return found

    def prior_losses(
        self, parts: Restored, damaged: Tensor, clean: Tensor, new: int, latents: Tensor, number: int = 0
    ) -> dict[str, Tensor]:
        """Stage 2: losses of the drawn prior, and of prior and estimate joined as the pipeline joins them.

        Args:
            parts: what the network gave.
            damaged: (N,3,S,S) what it was given.
            clean: (N,3,S,S) what is wanted.
            new: the first so many faces are what is wanted in every pixel; the others are old photographs.
            latents: (M,2,512) of the first M faces.
            number: of the batch.
        """
        preset = self.preset
        rng = torch.Generator().manual_seed(number)
        drawn = draw_prior(self.generator, self.head, parts, self.restorer.dictionary).float() / 2 + 0.5
        prior = torch.nn.functional.interpolate(drawn, size=clean.shape[2:], mode="area")
        # A monochrome photo takes the prior's luma alone, and leaves its colours free.
        grey = (damaged.amax(1) - damaged.amin(1)).amax((1, 2)) < 1e-6
        prior = as_luma(prior, grey)
        # The estimate stays the one of least error: with a gradient from these judges it learns fine grids that
        # please them and nobody else.
        joined = fuse(parts.estimate.detach(), prior, FIDELITY)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            landmarks = landmark_loss(self.mesh, joined, clean) + landmark_loss(self.mesh, prior, clean)
            maps = identity_loss(self.identity, prior[:new], clean[:new])
            person = descriptor_loss(self.identity, prior, clean, rng)
            person = person + 0.5 * descriptor_loss(self.identity, joined, clean, rng)
        found = {
            "prior": preset.prior_weight * coarse_loss(prior[:new], clean[:new]),
            "spatial": preset.spatial_weight * self.departure(parts),
            "energy": preset.energy_weight * energy_loss(prior[:new], clean[:new]),
            "maps": preset.maps_weight * maps,
            "person": preset.person_weight * person,
            "landmarks": preset.landmarks_weight * landmarks,
        }
        if preset.grid_weight:
            eyes = [components(faces[:new])[:, :EYES] for faces in (prior, clean)]
            found["grid"] = preset.grid_weight * (grid_loss(prior[:new], clean[:new]) + grid_loss(*eyes, cells=(2,)))
        if preset.fine_weight:
            found["fine"] = preset.fine_weight * self.fine_loss(drawn[: len(latents)], latents)
        if new < len(clean):
            both = consistency_loss(prior[new:], clean[new:]) + consistency_loss(parts.estimate[new:], clean[new:])
            found["consistency"] = preset.consistency_weight * both
        for name, critic in self.critics.items():
            found[name] = getattr(preset, f"{name}_weight") * critic.loss(prior, found["prior"])
        self.drawn = prior.detach()
        return found

    def fine_loss(self, drawn: Tensor, latents: Tensor) -> Tensor:
        """How far the local contrast of the finest octave of faces (M,3,S,S) is from that of their own latents' faces.

        The clean faces are half as large as those that the head draws, so that nothing else sees that octave.
        """
        with torch.no_grad():
            w = expand_latents(latents).to(self.device, torch.bfloat16)
            wanted = torch.cat([self.head.render(self.generator, one) for one in w.split(1)]).float() / 2 + 0.5
        return energy_loss(luma(drawn), luma(wanted), bands=1)

    def departure(self, parts: Restored) -> Tensor:
        """How far the parts that were added leave the generator's own ways: mean squares, of size one at most.

        Scales and shifts of maps that the head does not show are left alone: nothing would hold against this.
        """
        shown = parts.spatial[: self.head.config.start - START_BLOCK]
        total = sum(mean_square(part) for pair in shown for part in pair)
        if parts.styles is not None:
            total = total + mean_square(parts.styles / self.restorer.latent_std)
        return total

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to 2 % over the preset's images."""
        preset = self.preset
        warm = min(1.0, (self.step + 1) / preset.warmup)
        done = min(1.0, self.images / preset.images)
        return preset.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))

    def update(self, *batches: Batch) -> dict[str, float]:
        """One optimisation step on all of the batches together; returns the mean losses of this process."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate() * group["times"]
        self.optimizer.zero_grad(set_to_none=True)
        values: dict[str, float] = {}
        shown = []  # to the critics
        for batch in batches:
            found = self.losses(batch)
            (sum(found.values()) / len(batches)).backward()
            for name, value in found.items():
                values[name] = values.get(name, 0.0) + value.item() / len(batches)
            if self.critics:
                shown.append((self.drawn, photographs(batch).to(self.device)))
        self.team.average(self.restorer.parameters())
        torch.nn.utils.clip_grad_norm_(self.restorer.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            decay = min(self.preset.ema, (1 + self.step) / (10 + self.step))
            now = self.restorer.state_dict()
            torch._foreach_lerp_([self.average[name] for name in now], list(now.values()), 1 - decay)
        self.step += 1
        for name, critic in self.critics.items():
            values[f"{name} critic"] = critic.learn(*shown, average=self.team.average)
        return values

    # ---- the loop

    def run(self, minutes: float | None = None) -> None:
        """Train until the preset's images are seen or the minutes are over; saves every few minutes and at the end."""
        start = saved = time.monotonic()
        spent_before = self.seconds
        sums: dict[str, list[float]] = {}
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self.load, self.step)
            while self.images < self.preset.images:
                batches = ahead.result()
                ahead = pool.submit(self.load, self.step + 1)
                for name, value in self.update(*batches).items():
                    sums.setdefault(name, []).append(value)
                now = time.monotonic()
                self.seconds = spent_before + now - start
                if self.step % LOG_STEPS == 0:
                    self.log(sums)
                    sums = {}
                if now - saved > SAVE_SECONDS:
                    self.save()
                    saved = now
                if minutes is not None and self.team.agree(now - start > minutes * 60):
                    break
        self.save()

    def log(self, sums: dict[str, list[float]]) -> None:
        """One line: images, losses (of the leading process), rate."""
        if not self.team.leads:
            return
        parts = [f"{name} {np.mean(values):.4f}" for name, values in sums.items()]
        speed = f"lr {self.learning_rate():.1e}  {self.images / self.seconds:.1f} img/s"
        line = f"{self.images} images  {'  '.join(parts)}  {speed}"
        self.report(line)
        with (self.folder / "log.txt").open("a") as file:
            file.write(line + "\n")

    # ---- files

    def save(self) -> None:
        """Checkpoint (exact resume), averaged weights as a `Restorer` folder, and a sample sheet; by one process."""
        if not self.team.leads:
            return
        tensors = {f"net.{name}": value for name, value in self.restorer.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= checkpoints.moments(self.optimizer)
        for critic in self.critics.values():
            tensors |= critic.tensors()
        state = {"step": self.step, "seconds": self.seconds, "preset": self.preset.name, "batches": self.team.together}
        checkpoints.save(self.folder / "checkpoint", tensors, state)
        self.averaged().save_pretrained(self.folder / "restorer")
        self.sheet()

    def resume(self) -> None:
        """Continue from `folder/checkpoint`.

        Raises:
            WeightsError: no checkpoint there.
            InputError: its steps had another number of batches, so that no step would go on where it stopped.
        """
        tensors, state = checkpoints.load(self.folder / "checkpoint")
        if (batches := state.get("batches", 1)) != self.team.together:
            raise InputError(
                f"processes times accumulated batches must be {batches} as in {self.folder}, got {self.team.together}:"
                " resume with as many"
            )
        self.step, self.seconds = state["step"], state["seconds"]

        def under(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

        self.restorer.load_state_dict(under("net."))
        self.restorer.prepare(self.generator)
        self.average = {name: value.to(self.device) for name, value in under("average.").items()}
        checkpoints.load_moments(self.optimizer, tensors)
        for critic in self.critics.values():
            critic.load(tensors)

    def averaged(self) -> Restorer:
        """The averaged weights as a network of their own, on the CPU."""
        net = Restorer.from_config(self.restorer.config)
        net.load_state_dict({name: value.float().cpu() for name, value in self.average.items()})
        return net.eval()

    @torch.no_grad()
    def sheet(self, count: int = 6) -> None:
        """Rows of damaged, estimate, prior, both joined, clean for a fixed batch, as `samples/<images>.png`."""
        batch = self.load_batch(-1)
        rows = slice(len(batch.clean) - count if len(batch.clean) > count else 0, None)
        damaged, clean = batch.damaged[rows], batch.clean[rows]
        net = self.averaged().to(self.device)
        net.prepare(self.generator)
        restored = net(damaged.to(self.device))
        prior = draw_prior(self.generator, self.head, restored, net.dictionary).float().cpu() / 2 + 0.5
        prior = torch.nn.functional.interpolate(prior, size=damaged.shape[2:], mode="area")
        estimate = restored.estimate.cpu()
        joined = fuse(estimate, prior, FIDELITY)
        grid = torch.cat([torch.cat(list(x), 1) for x in (damaged, estimate, prior, joined, clean)], 2)
        pixels = (grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        (self.folder / "samples").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(self.folder / "samples" / f"{self.images:07d}.png")


def flipped(faces: Tensor, rng: torch.Generator) -> Tensor:
    """Each face (N,3,S,S) or its mirror image."""
    flip = torch.rand(len(faces), 1, 1, 1, generator=rng) < 0.5
    return torch.where(flip, faces.flip(3), faces)


def photographs(batch: Batch) -> Tensor:
    """What a critic is shown as real, (N,3,S,S): the clean faces, and in the place of old ones others of them in grey.

    An old photograph's own grain and dots are nothing to learn from; without grey ones, greyness gave old faces away.
    """
    clean = batch.clean[: len(batch.clean) - batch.old]
    return torch.cat([clean, luma(clean[: batch.old]).expand(-1, 3, -1, -1)])


def mean_square(x: Tensor) -> Tensor:
    """Mean of squares; unlike that of `square`, its gradient is one pass over memory."""
    return torch.nn.functional.mse_loss(x, x.new_zeros(()).expand_as(x))
