"""Training of the face finder: labels that cost nothing, a small network, and scales drawn where it is still bad.

Step k draws its scenes from (seed, k) and from how often each size of face is drawn by then, which follows the losses
(the online feedback of MOS, arXiv 2010.10921) with a delay of one round, so that scenes can be drawn ahead and a
training that goes on is the same to the bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from studio import weights
from studio.find import FaceFinder
from studio.latents.measure import MIN_PRESENCE, place_aligned
from studio.networks.finder import STRIDE, TURNS, UNIT_DEGREES, FinderNet, cell_middles, decode, rotation
from studio.networks.generator import Generator
from studio.networks.image_head import ImageHead
from studio.networks.latent_space import LatentSpace
from studio.photosets import an_eighth, held_out
from studio.training import checkpoints
from studio.training.data import SHARD, draw_latents, expand_latents, load_real_faces
from studio.training.presets import FinderPreset
from studio.training.scenes import EDGES, SIZE, FaceBank, Labels, Scenes, damage_faces

SAVE_SECONDS, LOG_STEPS, ROUND = 180, 50, 100
TASKS = ("score", "box", "points", "pose", "turn", "spread", "shown")
REACH, LEAST_REACH = 0.12, 3.5  # of the bump around a face's middle: share of its side, px
OWN = 0.5  # height of the bump from which on a cell answers for the face
EVEN = 0.4  # share of the sizes that is drawn evenly, whatever the losses
HELD_OUT_SEED = 7_000_000
TURNED_SEED, MOST_YAW, MOST_PITCH = 20_000_000, 75.0, 25.0
SMALLEST_REAL = 128  # px
COPIES = 2  # damaged ones of each face of the bank


# ---- the bank


def label(finder: FaceFinder, images: Tensor) -> tuple[Tensor, Tensor]:
    """The mesh on aligned faces (N,3,S,S) uint8: (N,468,3) float16 in sides, and which of them (N,) the mesh sees."""
    found = [place_aligned(finder, part.float() / 255) for part in images.split(16)]
    mesh = torch.from_numpy(np.concatenate([one.mesh for one in found])) / images.shape[-1]
    seen = torch.from_numpy(np.concatenate([one.presence for one in found])) >= MIN_PRESENCE
    return mesh.half(), seen


def write_faces(path: Path, images: Tensor, finder: FaceFinder) -> int:
    """Label aligned faces (N,3,S,S) uint8 and keep those that the mesh sees, as a file of a bank; returns how many."""
    if images.shape[-1] != SIZE:
        images = torch.cat(
            [F.interpolate(part.float(), (SIZE, SIZE), mode="area").round().byte() for part in images.split(64)]
        )
    mesh, seen = label(finder, images)
    images = images[seen].permute(0, 2, 3, 1).contiguous()
    damaged, left = damage_faces(images, COPIES, crc32(path.stem.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({"images": images, "mesh": mesh[seen], "damaged": damaged, "left": left}, part)
    part.replace(path)
    return int(seen.sum())


def make_bank(
    folder: Path, cache: Path, photos: Path | None, turned: int, report: Callable[[str], None] = print
) -> None:
    """Fill a bank with labelled faces; files that are there are kept.

    Args:
        folder: of the bank.
        cache: generated faces, see `studio train faces`.
        photos: a folder with `aligned_clean/`, `portraits/`, `aligned_studio/` and `aligned_old/`, of which only the
            faces are taken that are not kept for measuring; None leaves real faces out.
        turned: shards of generated faces that are turned aside.
        report: receives one line for each file.
    """
    finder = FaceFinder.with_blaze()

    def write(name: str, make: Callable[[], Tensor]) -> None:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            report(f"{path.name}: {write_faces(path, make(), finder)} faces")

    if photos:
        old = photos / "aligned_old"
        write("clean-00000", lambda: load_real_faces(photos / "aligned_clean", held_out(photos), SMALLEST_REAL))
        write("studio-00000", lambda: load_real_faces(photos / "aligned_studio", smallest=SMALLEST_REAL))
        kept = an_eighth(path.stem for path in old.iterdir())
        write("old-00000", lambda: load_real_faces(old, kept, SMALLEST_REAL))
    for number, shard in enumerate(sorted(cache.glob("faces-*.safetensors"))):
        write(f"generated-{number:05d}", lambda shard=shard: load_file(shard)["images"])
    if turned:
        turner = Turner.from_pretrained()
        for number in range(turned):
            write(f"turned-{number:05d}", lambda number=number: turner.shard(number))


@dataclass(frozen=True)
class Turner:
    """Draws generated faces that look aside, up or down: further than they come by themselves."""

    generator: Generator
    head: ImageHead
    space: LatentSpace

    @classmethod
    def from_pretrained(cls) -> Turner:
        """With the weights of the store.

        Raises:
            MissingWeightsError: not here and could not be fetched.
        """
        generator, head = (
            kind.from_pretrained(weights.path(name), dtype=torch.bfloat16).to(memory_format=torch.channels_last)
            for kind, name in ((Generator, "generator"), (ImageHead, "head_256"))
        )
        return cls(generator, head, LatentSpace.from_pretrained(weights.path("directions")))

    @torch.inference_mode()
    def shard(self, number: int) -> Tensor:
        """Faces (256,3,256,256) uint8 of shard `number`, which depends on that number alone."""
        seed = TURNED_SEED + number
        rng = torch.Generator().manual_seed(seed)
        pairs = draw_latents(self.generator, SHARD, seed)
        moved = pairs[:, 0]
        for name, most in (("yaw", MOST_YAW), ("pitch", MOST_PITCH)):
            degrees = most * (2 * torch.rand(SHARD, 1, generator=rng) - 1)
            moved = moved + degrees * self.space.directions[self.space.number(name)]
        pairs = torch.stack([moved, pairs[:, 1]], 1)
        pictures = []
        for pair in pairs.split(1):
            w = expand_latents(pair)[:, : self.generator.num_slots].to(self.generator.dtype)
            picture = self.head.render(self.generator, w).float() / 2 + 0.5
            pictures.append((picture.clamp(0, 1) * 255).round().byte())
        return torch.cat(pictures)


def load_bank(folder: Path, weights: dict[str, float]) -> FaceBank:
    """All files of a bank; `weights` are the shares of those whose names begin so, together."""
    images, damaged, left, mesh, chances = [], [], [], [], []
    paths = sorted(folder.glob("*.safetensors"))
    kinds = [path.name.rsplit("-", 1)[0] for path in paths]
    counts: dict[str, int] = {}
    for path, kind in zip(paths, kinds, strict=True):
        part = load_file(path)
        for parts, name in ((images, "images"), (damaged, "damaged"), (left, "left")):
            parts.append(part[name])
        mesh.append(part["mesh"].numpy())
        counts[kind] = counts.get(kind, 0) + len(part["mesh"])
    for kind, part in zip(kinds, mesh, strict=True):
        chances.append(np.full(len(part), weights.get(kind, 0.0) / counts[kind]))
    return FaceBank(images, damaged, left, np.concatenate(mesh), np.concatenate(chances))


# ---- what is asked


@dataclass
class Targets:
    """What cells should say of a batch of scenes, as tensors.

    Attributes:
        bump: (N,h,w) in [0,1], 1 in the cell of a face's middle.
        counted: (N,h,w) weights of the cells without a middle; 0 around faces of which nothing is asked.
        cells: (C,3) batch, row and column of the cells that answer for a face.
        face: (C,) which face, of all faces of the batch that are asked for.
        boxes, points, pose, shown, bins: of those faces, see `Labels`.
        middles: (K,3) batch, row and column of the middle of each.
    """

    bump: Tensor
    counted: Tensor
    cells: Tensor
    face: Tensor
    boxes: Tensor
    points: Tensor
    pose: Tensor
    shown: Tensor
    bins: Tensor
    middles: Tensor


def targets(labels: Sequence[Labels], size: int = SIZE) -> Targets:
    """Targets of scenes of `size` pixels."""
    side = size // STRIDE
    places = cell_middles(size, size)
    bumps, counted, cells, owners, middles = [], [], [], [], []
    total = 0
    for n, known in enumerate(labels):
        bump, near, weight = torch.zeros(side, side), torch.zeros(side, side), torch.ones(side, side)
        own = torch.full((side, side), -1)
        boxes = torch.from_numpy(known.boxes)
        for k in (-(boxes[:, 2:] - boxes[:, :2]).prod(1)).argsort().tolist():  # small faces lie on large ones
            middle, length = (boxes[k, :2] + boxes[k, 2:]) / 2, float((boxes[k, 2:] - boxes[k, :2]).mean())
            reach = max(REACH * length, LEAST_REACH)
            shape = torch.exp(-(places - middle).square().sum(-1) / (2 * reach**2))
            if not known.asked[k]:
                weight = torch.where(shape > 0.1, 0, weight)
                continue
            column, row = ((middle / STRIDE).long().clamp(0, side - 1)).tolist()
            bump = torch.maximum(bump, shape)
            mine = (shape > OWN) & (shape >= near)
            mine[row, column] = True
            near = torch.where(mine, shape, near)
            number = total + int(known.asked[:k].sum())
            own[mine] = number
            middles.append((n, row, column))
        for _, row, column in (place for place in middles if place[0] == n):
            bump[row, column] = 1
        bumps.append(bump)
        counted.append(torch.where(bump == 1, 1, weight))
        row, column = torch.nonzero(own >= 0, as_tuple=True)
        cells.append(torch.stack([torch.full_like(row, n), row, column], 1))
        owners.append(own[row, column])
        total += int(known.asked.sum())
    gathered = {
        name: torch.from_numpy(np.concatenate([getattr(known, name)[known.asked] for known in labels]))
        for name in ("boxes", "points", "pose", "shown", "bins")
    }
    centres = (gathered["boxes"][:, :2] + gathered["boxes"][:, 2:]) / 2
    batch = torch.cat([torch.full((int(known.asked.sum()),), n) for n, known in enumerate(labels)])
    place = (centres / STRIDE).long().clamp(0, side - 1)
    return Targets(
        bump=torch.stack(bumps),
        counted=torch.stack(counted).float(),
        cells=torch.cat(cells),
        face=torch.cat(owners),
        middles=torch.stack([batch, place[:, 1], place[:, 0]], 1),
        **gathered,
    )


def losses(raw: Tensor, wanted: Targets) -> tuple[dict[str, Tensor], Tensor]:
    """Losses of the network's output (N,35,h,w) by task, and of each face (K,) for the choice of sizes."""
    raw = raw.movedim(1, -1)  # (N, h, w, 35)
    logits = raw[..., 0].float()
    count = max(len(wanted.boxes), 1)
    # The focal loss of CenterNet: the middle's cell, and all others by how far they are from one.
    p = logits.sigmoid()
    middle = wanted.bump == 1
    easy = (1 - wanted.bump).pow(4) * wanted.counted
    missed = -(1 - p).square() * F.logsigmoid(logits) * middle
    false = -p.square() * F.logsigmoid(-logits) * easy * ~middle
    found = {"score": (missed.sum() + false.sum()) / count}
    if not len(wanted.cells):
        zero = raw.sum() * 0
        return found | dict.fromkeys(TASKS[1:], zero), torch.zeros(0)
    n, row, column = wanted.cells.T
    places = cell_middles(*(STRIDE * side for side in logits.shape[1:])).to(raw.device)
    said = decode(raw[n, row, column], places[row, column])
    face = wanted.face
    share = 1 / torch.bincount(face, minlength=count).to(raw)[face]  # every face counts once
    boxes, points = wanted.boxes[face], wanted.points[face]
    side = (boxes[:, 2:] - boxes[:, :2]).mean(1)
    size, true_size = (b[:, 2:] - b[:, :2] for b in (said.boxes, boxes))
    centre, true_centre = ((b[:, :2] + b[:, 2:]) / 2 for b in (said.boxes, boxes))
    box = (centre - true_centre).abs().sum(1) / side + (size / true_size.clamp(min=1)).log().abs().sum(1)
    apart = (said.points - points).norm(dim=2).mean(1) / side
    roll = wanted.pose[face, 2]
    # The points are learnt as if no face were turned, which is easy, and the turn apart from them, which is not.
    upright = (points - true_centre[:, None]) / side[:, None, None] @ rotation(roll)
    rest = roll[:, None] - said.rests - torch.arange(TURNS, device=roll.device) * (360 / TURNS)
    rest = ((rest + 180) % 360 - 180) / (360 / TURNS)  # of every turn, were it the right one, in turns
    right = (roll[:, None] - torch.arange(TURNS, device=roll.device) * (360 / TURNS) + 180) % 360 - 180
    near = (1 - right.abs() / (360 / TURNS)).clamp(min=0)  # the two turns that it lies between
    each = {
        "box": box,
        "points": (said.upright - upright).norm(dim=2).mean(1),
        "pose": ((said.pose[:, :2] - wanted.pose[face, :2]) / UNIT_DEGREES).abs().sum(1),
        "turn": -(near * said.turns.log_softmax(1)).sum(1) + (rest.abs() * (near > 0)).sum(1),
        "spread": apart.detach() / said.spread + said.spread.log(),
        "shown": F.binary_cross_entropy_with_logits(said.shown, wanted.shown[face].to(said.shown), reduction="none"),
    }
    found |= {name: (value * share).sum() / count for name, value in each.items()}
    per_face = missed[tuple(wanted.middles.T)].detach()
    per_face = per_face + torch.zeros_like(per_face).index_add_(0, face, (apart * share).detach())
    return found, per_face


# ---- the loop


@dataclass
class FinderTrainer:
    """Everything a training holds.

    Args:
        preset: what to train.
        scenes: draws what is learnt from.
        folder: where checkpoint, network, log and sheets go.
        net: not folded; changed in place.
        device: "cpu" or "cuda".
        report: receives one line of text at a time.
    """

    preset: FinderPreset
    scenes: Scenes
    folder: Path
    net: FinderNet
    device: str = "cpu"
    report: Callable[[str], None] = print
    step: int = 0
    seconds: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.net.to(self.device, memory_format=torch.channels_last).train()
        self.balance = nn.Parameter(torch.zeros(len(TASKS), device=self.device))  # logarithms of the tasks' noise
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": [*plain, self.balance], "weight_decay": 0.0}],
            lr=self.preset.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.02,
        )
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        bins = len(EDGES) - 1
        self.running = torch.ones(bins)  # loss of the faces of each size
        self.shares = [torch.full((bins,), 1 / bins)] * 2  # of this round and the next

    def shares_of(self, step: int) -> Tensor:
        """How often each size is drawn in a step of this round or the next."""
        return self.shares[step // ROUND - self.step // ROUND]

    def load(self, step: int) -> tuple[Tensor, Targets]:
        """Scenes (N,3,S,S) uint8 of step number `step`, and what is asked of them."""
        shares = self.shares_of(step).double().numpy()
        shares = shares / shares.sum()
        drawn = [
            one for i in range(self.preset.batch // 2) for one in self.scenes((self.preset.seed, step, i), shares, 2)
        ]
        return torch.stack([pixels for pixels, _ in drawn]), targets([labels for _, labels in drawn])

    def rate(self) -> float:
        """Linear warm-up, then a cosine to 1 % over the images."""
        preset = self.preset
        done = min(1.0, self.step * preset.batch / preset.scenes)
        warm = min(1.0, (self.step + 1) / preset.warmup)
        return preset.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    def update(self, pixels: Tensor, wanted: Targets) -> dict[str, float]:
        """One step; returns the losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        x = (pixels.to(self.device).float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            raw = self.net(x)
        found, per_face = losses(raw, on(wanted, self.device))
        # Each task by its own uncertainty (Kendall et al., arXiv 1705.07115).
        noise = self.balance.clamp(-4, 4)
        total = sum(found[task] * (-noise[i]).exp() + noise[i] for i, task in enumerate(TASKS) if task != "spread")
        total = total + found["spread"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        with torch.no_grad():
            decay = min(self.preset.ema, (1 + self.step) / (10 + self.step))
            now = {name: value for name, value in self.net.state_dict().items() if value.is_floating_point()}
            torch._foreach_lerp_([self.average[name] for name in now], list(now.values()), 1 - decay)
            for number, loss in zip(wanted.bins.tolist(), per_face.tolist(), strict=True):
                self.running[number] += 0.01 * (min(loss, 5.0) - self.running[number])
        self.step += 1
        if self.step % ROUND == 0:
            wanted_shares = EVEN / len(self.running) + (1 - EVEN) * self.running / self.running.sum()
            self.shares = [self.shares[1], wanted_shares / wanted_shares.sum()]
        return {name: value.item() for name, value in found.items()}

    def run(self, minutes: float | None = None) -> None:
        """Train until the images are seen or the minutes are over; saves every few minutes and at the end."""
        start = saved = time.monotonic()
        before = self.seconds
        sums: dict[str, list[float]] = {}
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self.load, self.step)
            while self.step * self.preset.batch < self.preset.scenes:
                given = ahead.result()
                ahead = pool.submit(self.load, self.step + 1)
                for name, value in self.update(*given).items():
                    sums.setdefault(name, []).append(value)
                now = time.monotonic()
                self.seconds = before + now - start
                if self.step % LOG_STEPS == 0:
                    self.log(sums)
                    sums = {}
                if now - saved > SAVE_SECONDS:
                    ahead.result()  # the scenes ahead are drawn with the shares as they are
                    self.save()
                    saved = now
                if minutes is not None and now - start > minutes * 60:
                    break
            ahead.result()
        self.save()

    def log(self, sums: dict[str, list[float]]) -> None:
        """One line: scenes, losses, shares of the smallest and largest sizes, rate."""
        images = self.step * self.preset.batch
        parts = "  ".join(f"{name} {np.mean(values):.3f}" for name, values in sums.items())
        sizes = " ".join(f"{share:.2f}" for share in self.shares[0].tolist())
        line = f"{images} scenes  {parts}  sizes {sizes}  lr {self.rate():.1e}  {images / self.seconds:.1f}/s"
        self.report(line)
        with (self.folder / "log.txt").open("a") as file:
            file.write(line + "\n")

    # ---- files

    def save(self) -> None:
        """Checkpoint, the averaged network, folded, as `finder`, and a sheet of held-out scenes."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {"balance": self.balance.detach(), "running": self.running, "shares": torch.stack(self.shares)}
        tensors |= checkpoints.moments(self.optimizer)
        checkpoints.save(self.folder / "checkpoint", tensors, {"step": self.step, "seconds": self.seconds})
        net = self.averaged()
        net.save_pretrained(self.folder / "finder")
        self.sheet(net)

    def resume(self) -> None:
        """Continue from `folder/checkpoint`."""
        tensors, state = checkpoints.load(self.folder / "checkpoint")
        self.step, self.seconds = state["step"], state["seconds"]

        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        self.net.load_state_dict(under("net."))
        self.average = {name: value.to(self.device) for name, value in under("average.").items()}
        self.balance.data.copy_(tensors["balance"])
        self.running, self.shares = tensors["running"].clone(), list(tensors["shares"].clone())
        checkpoints.load_moments(self.optimizer, tensors)

    def averaged(self) -> FinderNet:
        """The averaged weights as a folded network of their own, on the CPU."""
        net = FinderNet.from_config(self.net.config)
        net.load_state_dict({name: value.cpu() for name, value in self.average.items()})
        return net.eval().fold().eval()

    @torch.no_grad()
    def sheet(self, net: FinderNet, count: int = 24) -> None:
        """Held-out scenes with what is found (yellow) and what was asked (white), as `sheet.png`."""
        drawn = [one for i in range(count) for one in self.scenes((HELD_OUT_SEED, i))]
        raw = net(torch.stack([pixels for pixels, _ in drawn]).float() / 255).movedim(1, -1)
        said = decode(raw, cell_middles(SIZE, SIZE))
        columns = 8
        whole = Image.new("RGB", (columns * SIZE, -(-count // columns) * SIZE))
        for i, (pixels, labels) in enumerate(drawn):
            picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            canvas = ImageDraw.Draw(picture)
            for box, asked in zip(labels.boxes.tolist(), labels.asked.tolist(), strict=True):
                canvas.rectangle(box, outline="white" if asked else "grey")
            scores = said.logits[i].sigmoid()
            best = (scores == F.max_pool2d(scores[None], 3, 1, 1)[0]) & (scores > 0.5)
            for box, points in zip(said.boxes[i][best].tolist(), said.points[i][best].tolist(), strict=True):
                canvas.rectangle(box, outline="yellow")
                for (x, y), colour in zip(points, ("red", "lime", "cyan", "orange", "blue"), strict=True):
                    canvas.ellipse((x - 1, y - 1, x + 1, y + 1), fill=colour)
            whole.paste(picture, (i % columns * SIZE, i // columns * SIZE))
        whole.save(self.folder / "sheet.png")


def on(wanted: Targets, device: str) -> Targets:
    """The same on another device."""
    return Targets(**{name: value.to(device) for name, value in vars(wanted).items()})
