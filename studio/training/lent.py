"""A quarter of an hour on a lent GPU: what draws a face goes on learning, on faces without end.

On a CPU everything is made once and read again. Here drawing a face costs nothing and damaging it costs most: processes
damage new faces all the time, and a pool on the GPU holds the last of them, which every step draws from. `DrawnPart`
trains the flow and what of the restorer the regressed map does not hang on *together*, through the generator and the
512 px head, on the picture that is shown: drawn, without its lattice, joined with the estimate. The gradient goes
through the last steps of the flow (truncated, DRaFT, arXiv 2309.17400, section 4), which also goes on as
`studio.training.map_flow` trains it, so that it stays a flow.

What is seen hangs on how quick the processes are, so that a repetition comes close and not to the bit.
"""

from __future__ import annotations

import copy
import math
import mmap
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio import images
from studio.degradations import degrade
from studio.imaging.joining import as_sharp_as_it_is, join
from studio.imaging.lattice import without_lattice
from studio.networks.cleaner import Cleaner
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.map_flow import CALM, MapFlow
from studio.networks.mesh import FaceMesh
from studio.networks.restorer import START_BLOCK, Restored, Restorer, as_certain, draw_prior
from studio.tone import luma, match_tone
from studio.training.critic import EYES, Adversary, components, whole
from studio.training.data import as_luma, draw_latents, expand_latents
from studio.training.losses import (
    coarse_loss,
    descriptor_loss,
    energy_loss,
    estimate_loss,
    grid_loss,
    identity_loss,
    landmark_loss,
)
from studio.training.map_flow import RECIPE, UNIT, in_bytes, velocity_loss

TOGETHER = 8  # faces that a process damages at once
REAL_EVERY = 6  # one of so many groups is of real faces
FIRST = 1500  # generated faces that the pool must hold before training begins
POOL = 26_000  # generated faces in the pool
GRADED = 2  # of the flow's last steps, that the gradient goes through
STEPS = 4  # of the flow
GROUPS = 6  # of damaged faces taken in at each step
WARMUP = 100
LEAST_RATE = 0.01
LOG_SECONDS = 20
# Parts of the restorer that the regressed map does not hang on.
FINISHED = (
    *("stage64.", "to_latent.", "to_styles.", "context8.", "refine.", "to_spatial.", "to_fine.", "to_residual."),
    "dictionary.",
)


# ---- damaged faces without end


def damage(clean: np.ndarray, damaged: np.ndarray, todo: Any, done: Any) -> None:
    """What a process does: damage the groups that it is told of; None ends it.

    Args:
        clean: (slots,TOGETHER,3,S,S) uint8, shared with the parent.
        damaged: the same, to be filled.
        todo: queue of (slot, seed).
        done: queue of (slot, which faces are monochrome).
    """
    torch.set_num_threads(1)
    while (task := todo.get()) is not None:
        slot, seed = task
        faces = torch.from_numpy(clean[slot]).float() / 255
        found, drawn = degrade(faces, RECIPE, torch.Generator().manual_seed(seed))
        grey = [one["tone"] != "colour" for one in drawn]
        found = as_luma(found, torch.tensor(grey))
        damaged[slot] = (found * 255).round().clamp(0, 255).byte().numpy()
        done.put((slot, grey))


class Damagers:
    """Processes that damage groups of faces. Made before anything touches the GPU: they are forked.

    Args:
        workers: processes.
        slots: groups under way at once.
        side: of the faces in px.
    """

    def __init__(self, workers: int, slots: int, side: int = 512) -> None:
        shape = (slots, TOGETHER, 3, side, side)
        self.clean, self.damaged = (
            np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape) for _ in range(2)
        )
        context = multiprocessing.get_context("fork")
        self.todo, self.done = context.SimpleQueue(), context.SimpleQueue()
        arguments = (self.clean, self.damaged, self.todo, self.done)
        self.processes = [context.Process(target=damage, args=arguments, daemon=True) for _ in range(workers)]
        for process in self.processes:
            process.start()
        self.free = list(range(slots))
        self.started = 0

    def start(self, faces: Tensor) -> int:
        """Have a group (TOGETHER,3,S,S) uint8 damaged; returns its slot, which must be free."""
        slot = self.free.pop()
        self.clean[slot] = faces.cpu().numpy()
        self.todo.put((slot, 9_000_000 + self.started))
        self.started += 1
        return slot

    def finished(self) -> tuple[int, Tensor, Tensor] | None:
        """A slot that is done, its damaged faces uint8 and which are monochrome (TOGETHER,); None when none is."""
        if self.done.empty():
            return None
        slot, grey = self.done.get()
        self.free.append(slot)
        return slot, torch.from_numpy(self.damaged[slot].copy()), torch.tensor(grey)

    def close(self) -> None:
        """End the processes."""
        for _ in self.processes:
            self.todo.put(None)
        for process in self.processes:
            process.join(5)
            process.terminate()


@dataclass
class Pool:
    """The last faces of one kind, in columns on the device; `count` were ever put in."""

    size: int
    device: str
    columns: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def put(self, **rows: Tensor) -> None:
        """Add N rows to each column; the oldest make place."""
        places = torch.arange(self.count, self.count + len(next(iter(rows.values())))) % self.size
        for name, values in rows.items():
            if name not in self.columns:
                shape = (self.size, *values.shape[1:])
                self.columns[name] = torch.empty(shape, dtype=values.dtype, device=self.device)
            self.columns[name][places.to(self.device)] = values.to(self.device)
        self.count += len(places)

    def draw(self, batch: int) -> dict[str, Tensor]:
        """Rows drawn at random."""
        rows = torch.randint(min(self.count, self.size), (batch,), device=self.device)
        return {name: values[rows] for name, values in self.columns.items()}


class Stream:
    """Keeps the processes busy and the two pools filled.

    Args:
        damagers: see there.
        generator: float32, on the device; draws latents, maps and pictures.
        head: of 512 px, float32.
        restorer: regresses maps.
        flow: whose components maps are kept in.
        real: (N,3,256,256) uint8, photographs of faces.
        size: of the pool of generated faces.
    """

    def __init__(
        self,
        damagers: Damagers,
        generator: Generator,
        head: ImageHead,
        restorer: Restorer,
        flow: MapFlow,
        real: Tensor,
        size: int,
    ) -> None:
        self.damagers, self.generator, self.head = damagers, generator, head
        self.restorer, self.flow, self.real = restorer, flow, real
        self.device = str(generator.device)
        self.generated, self.photographs = Pool(size, self.device), Pool(size // 8, self.device)
        self.waiting: dict[int, Tensor] = {}  # latents or photographs of the slots under way
        self.groups = 0
        self.rng = torch.Generator().manual_seed(5)

    @torch.no_grad()
    def feed(self, most: int = 2) -> None:
        """Take in what is damaged, `most` groups at a time, and start as much again."""
        for _ in range(most):
            found = self.damagers.finished()
            if found is None:
                break
            self.take(*found)
        for _ in range(min(most, len(self.damagers.free))):
            self.begin()

    def begin(self) -> None:
        """Start one group: new generated faces, or real ones, mirrored or not, enlarged."""
        self.groups += 1
        side = self.damagers.clean.shape[-1]
        if self.groups % REAL_EVERY == 0:
            kept = self.real[torch.randint(len(self.real), (TOGETHER,), generator=self.rng)]
            flip = torch.rand(TOGETHER, 1, 1, 1, generator=self.rng) < 0.5
            kept = torch.where(flip, kept.flip(3), kept)
            faces = images.resize(kept.to(self.device).float() / 255, side, side)
        else:
            kept = draw_latents(self.generator, TOGETHER, 20_000_000 + self.groups)
            faces = self.head.render(self.generator, expand_latents(kept).to(self.device)) / 2 + 0.5
        self.waiting[self.damagers.start((faces * 255).round().clamp(0, 255).byte())] = kept

    def take(self, slot: int, seen: Tensor, grey: Tensor) -> None:
        """Put one damaged group into its pool."""
        kept = self.waiting.pop(slot)
        seen, grey = seen.to(self.device), grey.to(self.device)
        if kept.ndim == 4:
            self.photographs.put(seen=seen, clean=kept, grey=grey)
            return
        small = images.resize(seen.float() / 255, self.restorer.config.size, self.restorer.config.size)
        own = self.generator.features(expand_latents(kept).to(self.device), START_BLOCK)
        self.generated.put(
            seen=seen,
            small=(small * 255).round().byte(),
            latents=kept,
            grey=grey,
            face=in_bytes(self.flow, own),
            regressed=in_bytes(self.flow, self.restorer(small).features),
        )

    def fill(self, count: int, seconds: float = 120) -> None:
        """Wait until the pool holds `count` generated faces."""
        end = time.monotonic() + seconds
        while self.generated.count < count and time.monotonic() < end:
            self.feed()


# ---- training by the clock


@dataclass
class Part:
    """One network trained for a given time: AdamW, a warm-up, a cosine over the seconds, a running average.

    Args:
        stream: of faces.
        net: changed in place.
        seconds: of training.
        learning_rate: its peak.
        report: receives one line of text at a time.
    """

    stream: Stream
    net: nn.Module
    seconds: float
    learning_rate: float
    report: Callable[[str], None] = print
    average_decay: float = 0.998
    step: int = 0

    def trained(self) -> list[nn.Parameter]:
        """The parameters that change."""
        return list(self.net.parameters())

    def losses(self) -> dict[str, Tensor]:
        """What one batch costs, by name; the sum is minimised."""
        raise NotImplementedError

    def after(self, values: dict[str, float]) -> None:
        """Called after each step; may add to the log's values."""

    def run(self) -> nn.Module:
        """Train; returns the averaged network."""
        average = copy.deepcopy(self.net).eval().requires_grad_(False)
        parameters = self.trained()
        optimizer = torch.optim.AdamW(parameters, self.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        start = said = time.monotonic()
        sums: dict[str, Tensor] = {}
        steps = 0
        while (spent := time.monotonic() - start) < self.seconds:
            self.stream.feed(GROUPS)
            fall = 0.5 * (1 + math.cos(math.pi * spent / self.seconds))
            rate = self.learning_rate * min(1, (self.step + 1) / WARMUP) * (LEAST_RATE + (1 - LEAST_RATE) * fall)
            for group in optimizer.param_groups:
                group["lr"] = rate
            found = self.losses()
            optimizer.zero_grad(set_to_none=True)
            sum(found.values()).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            share = min(self.average_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(
                [value.data for value in average.parameters()],
                [value.data for value in self.net.parameters()],
                1 - share,
            )
            self.step += 1
            steps += 1
            values = {name: value.detach() for name, value in found.items()}
            self.after(values)
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value
            if time.monotonic() - said > LOG_SECONDS:
                means = "  ".join(f"{name} {float(value) / steps:.4f}" for name, value in sums.items())
                seen = f"{self.stream.generated.count} + {self.stream.photographs.count} faces"
                self.report(f"{spent:.0f} s  step {self.step}  {means}  {seen}")
                said, sums, steps = time.monotonic(), {}, 0
        return average


class Drawn(nn.Module):
    """The two networks that say what the generator draws of a damaged face.

    Args:
        restorer: prepared, see `Restorer.prepare`.
        flow: of its map.
    """

    def __init__(self, restorer: Restorer, flow: MapFlow) -> None:
        super().__init__()
        self.restorer, self.flow = restorer, flow

    def features(self, small: Tensor, regressed: Tensor) -> Tensor:
        """Maps (N,C,32,32) float32 that the flow draws; a gradient goes through its last `GRADED` steps.

        Args:
            small: (N,3,S,S) damaged faces.
            regressed: (N,C,32,32) float32, their regressed maps, without a gradient.
        """
        noise = CALM * torch.randn_like(self.flow.whiten(regressed))
        return self.flow.sample(small, regressed, noise, STEPS, GRADED)


@dataclass
class DrawnPart(Part):
    """The flow, and the restorer's styles, scales and shifts, through the generator.

    Args:
        cleaner: frozen.
        generator: bfloat16, frozen, like the head.
        head: of 512 px.
        identity: the judge of likeness.
        mesh: the judge of shape.
        batch: generated faces in a step.
        real: photographs in a step.
        maps: generated faces of which the flow's velocity is asked.
    """

    net: Drawn
    average_decay: float = 0.993
    cleaner: Cleaner = field(kw_only=True)
    generator: Generator = field(kw_only=True)
    head: ImageHead = field(kw_only=True)
    identity: IdentityNet = field(kw_only=True)
    mesh: FaceMesh = field(kw_only=True)
    batch: int = 32
    real: int = 16
    maps: int = 64

    def __post_init__(self) -> None:
        device = str(self.generator.device)
        views = {"fine": whole, "joined": whole, "whole": whole, "components": components}
        self.critics = {name: Adversary(name, view, device, k) for k, (name, view) in enumerate(views.items())}
        self.shown: dict[str, tuple[Tensor, Tensor]] = {}
        self.rng = torch.Generator().manual_seed(3)
        self.first = copy.deepcopy(self.net.restorer).eval().requires_grad_(False)
        self.net.restorer.prepare(self.generator)

    def trained(self) -> list[nn.Parameter]:
        """The flow, and of the restorer what the regressed map does not hang on."""
        for name, parameter in self.net.restorer.named_parameters():
            parameter.requires_grad_(name.startswith(FINISHED))
        self.net.flow.requires_grad_(True)
        return [parameter for parameter in self.net.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def faces(self) -> tuple[Tensor, Tensor, Tensor]:
        """Damaged faces (N,3,512,512), clean ones (N,3,256,256) and, of the first `batch`, clean ones of 512 px."""
        stream = self.stream
        drawn, real = stream.generated.draw(self.batch), stream.photographs.draw(self.real)
        w = expand_latents(drawn["latents"]).to(self.generator.dtype)
        fine = (self.head.render(self.generator, w).float() / 2 + 0.5).clamp(0, 1)
        grey = torch.cat([drawn["grey"], real["grey"]])
        fine = as_luma(fine, drawn["grey"])
        clean = torch.cat([F.avg_pool2d(fine, 2), real["clean"].float() / 255])
        clean = as_luma(clean, grey)
        return torch.cat([drawn["seen"], real["seen"]]).float() / 255, clean, fine

    def velocity(self) -> Tensor:
        """Of the flow, on maps that the pool holds; see `velocity_loss`."""
        rows = self.stream.generated.draw(self.maps)
        face, regressed = (rows[name].float() / UNIT for name in ("face", "regressed"))
        seen = (rows["small"].float() / 255).contiguous(memory_format=torch.channels_last)
        times = torch.rand(len(face), device=face.device)
        return velocity_loss(self.net.flow, face, regressed, seen, torch.randn_like(face), times)

    def losses(self) -> dict[str, Tensor]:
        """Of the drawn face, and of it joined with the estimate as it is shown; at 256 px but for the fine ones."""
        seen, clean, fine = self.faces()
        net, kind, size, count = self.net.restorer, seen.device.type, self.net.restorer.config.size, self.batch
        small = images.resize(seen, size, size).contiguous(memory_format=torch.channels_last)
        with torch.autocast(kind, torch.bfloat16):
            with torch.no_grad():
                cleaned = self.cleaner(seen.contiguous(memory_format=torch.channels_last))
                first = self.first.normalised(small)
            raw = net.normalised(small)
            parts = net.measured(raw, small)
            features = self.net.features(small, parts.features.detach())
        parts = as_certain(replace(parts, features=features), cleaned.certainty)
        picture = draw_prior(self.generator, self.head, parts, net.dictionary).float() / 2 + 0.5
        picture = as_luma(picture, (small.amax(1) - small.amin(1)).amax((1, 2)) < 1e-6)
        own, of_real = picture[:count], picture[count:]  # apart, so that the critics of 512 px see generated ones only
        picture = torch.cat([own, of_real])
        prior = F.avg_pool2d(picture, 2)
        toned = match_tone(without_lattice(picture), cleaned.estimate)
        large = join(cleaned.estimate, as_sharp_as_it_is(cleaned.certainty), toned, 0.5).picture
        own_joined, joined_of_real = large[:count], large[count:]
        joined = F.avg_pool2d(torch.cat([own_joined, joined_of_real]), 2)
        with torch.autocast(kind, torch.bfloat16):
            person = descriptor_loss(self.identity, prior, clean, self.rng)
            person = person + descriptor_loss(self.identity, joined, clean, self.rng)
            landmarks = landmark_loss(self.mesh, joined, clean) + landmark_loss(self.mesh, prior, clean)
            maps = identity_loss(self.identity, joined, clean)
        eyes = [components(faces)[:, :EYES] for faces in (prior, clean)]
        found = {
            "prior": 2.0 * coarse_loss(prior, clean),
            "joined pixels": 2.0 * coarse_loss(joined, clean),
            "eyes and mouth": 2.0 * coarse_loss(components(joined), components(clean)),
            "estimate": 2.0 * estimate_loss(parts.estimate, clean),
            "energy": 2.0 * energy_loss(prior, clean),
            "fine energy": 4.0 * energy_loss(luma(own), luma(fine), bands=1),
            "joined energy": 4.0 * energy_loss(luma(own_joined), luma(fine), bands=3),
            "maps": 1.0 * maps,
            "person": 5.0 * person,
            "landmarks": 8.0 * landmarks,
            "grid": 30.0 * (grid_loss(prior, clean) + grid_loss(*eyes, cells=(2,))),
            "spatial": 0.1 * sum(part.square().mean() for pair in parts.spatial for part in pair),
            "styles": 4.0 * away(raw, first),
            "velocity": 2.0 * self.velocity(),
        }
        pull = found["prior"] + found["joined pixels"]
        self.shown = {"fine": (own, fine), "joined": (own_joined, fine)}
        self.shown |= {"whole": (joined, clean), "components": (joined, clean)}
        shares = {"fine": 0.5, "joined": 0.5, "whole": 0.5, "components": 1.0}
        for name, critic in self.critics.items():
            found[name] = shares[name] * critic.loss(self.shown[name][0], pull)
            found[f"{name} maps"] = 0.5 * critic.matching(*self.shown[name])
        self.shown = {name: (drawn.detach(), wanted) for name, (drawn, wanted) in self.shown.items()}
        return found

    def after(self, values: dict[str, Any]) -> None:
        """Teach the critics."""
        for name, critic in self.critics.items():
            values[f"{name} critic"] = critic.learn(self.shown[name])


def away(now: Restored, first: Restored) -> Tensor:
    """How far latents and styles are from what another state of the network says, both as `Restorer.normalised`.

    They could learn to please the judges of likeness by styles that no face has, at the cost of texture.
    """
    found = (now.latent - first.latent).square().mean()
    if now.styles is not None:
        found = found + 4 * (now.styles - first.styles).square().mean()
    return found
