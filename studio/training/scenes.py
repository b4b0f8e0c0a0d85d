"""Pictures to learn finding faces from: aligned faces, whose meshes are known, pasted into pictures without any.

Everything is drawn from one number: the same number gives the same scene. Faces come in all sizes, lying and upside
down, in crowds and one before the other, cut by the border, covered, in other proportions, dark and light; before or
after they are pasted they are damaged by the recipes of restoration. What a scene must not be taken for is in it too:
things and animals, faces whose parts are in the wrong places, heads whose face is gone, and faces larger than the
finder's range, in whose cheeks no smaller ones are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor
from torch.nn import functional

from studio.degradations import degrade
from studio.errors import InputError
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.pose import pose_from_mesh
from studio.faces.templates import FACE_OVAL, five_points

SIZE = 256  # px of a scene
EDGES = (9, 12, 16, 22, 30, 42, 60, 85, 120, 170, 240)  # px, between which face sizes are drawn: mean side of the box
SMALLEST, LEAST_SHOWN = 8.0, 0.4  # px of a face in the damage, and share of it, that can be asked for
CROP_SIDE = 1.7  # sides of the face in a side of its FFHQ crop
MIRROR = ((MEAN_MESH * [-1, 1, 1] + [1, 0, 0])[:, None] - MEAN_MESH).__pow__(2).sum(-1).argmin(1)
DAMAGE = (  # of a face before it is pasted
    *(
        ("mild", 0.2),
        ("gfpgan", 0.25),
        ("codeformer_large", 0.3),
        ("old_photo", 0.13),
        ("web", 0.08),
        ("scratched", 0.04),
    ),
)
WHOLE = (  # of a scene
    *(("none", 0.42), ("mild", 0.18), ("gfpgan", 0.12), ("codeformer_large", 0.08)),
    *(("old_photo", 0.12), ("web", 0.05), ("scratched", 0.03)),
)
DAMAGED = 0.5  # share of the faces that are damaged before they are pasted
SOLID = [0] * 128 + [255] * 128
WORDS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;?!"


@dataclass
class Labels:
    """The faces of a scene; lengths are pixels.

    Attributes:
        boxes: (K,4) xyxy, spanned by the mesh.
        points: (K,5,2), see `five_points`.
        pose: (K,3) degrees.
        shown: (K,) share of the face that is in the picture and not covered.
        asked: (K,) whether it must be found; of the others nothing is asked.
        bins: (K,) of `EDGES`, in which its size was drawn.
    """

    boxes: np.ndarray
    points: np.ndarray
    pose: np.ndarray
    shown: np.ndarray
    asked: np.ndarray
    bins: np.ndarray


@dataclass(frozen=True)
class FaceBank:
    """Aligned faces with their meshes.

    Args:
        images: (N,S,S,3) uint8 RGB, FFHQ-aligned; in several tensors.
        damaged: (N,K,s,s,3) uint8, the same after damage, K times, likewise.
        left: (N,K) pixels of the face that the damage left, likewise.
        mesh: (N,468,3) float16, in sides of the picture.
        weights: (N,) how often each is drawn, relative to the others.
    """

    images: Sequence[Tensor]
    damaged: Sequence[Tensor]
    left: Sequence[Tensor]
    mesh: np.ndarray
    weights: np.ndarray
    _starts: np.ndarray = field(init=False)
    _chances: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", np.cumsum([0, *(len(part) for part in self.images)]))
        object.__setattr__(self, "_chances", np.cumsum(self.weights) / np.sum(self.weights))

    def __len__(self) -> int:
        return len(self.mesh)

    def draw(self, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray, float]:
        """A face, as it is or mirrored, as it is or damaged, its mesh (468,3) float32, and how many pixels are left."""
        i = min(int(np.searchsorted(self._chances, rng.random())), len(self) - 1)
        part = int(np.searchsorted(self._starts, i, "right")) - 1
        k, left = i - self._starts[part], math.inf
        pixels = self.images[part][k]
        if rng.random() < DAMAGED:
            number = int(rng.integers(self.damaged[part].shape[1]))
            pixels, left = self.damaged[part][k, number], float(self.left[part][k, number])
        image = Image.fromarray(pixels.numpy())
        mesh = self.mesh[i].astype(np.float32)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mesh = mesh[MIRROR] * np.float32([-1, 1, 1]) + np.float32([1, 0, 0])
        return image, mesh, left


@dataclass
class Faceless:
    """Pictures without faces, read when they are first asked for: whole ones, and things cut out (with transparency).

    Args:
        files: image files.
    """

    files: Sequence[Path]
    _read: dict[Path, Image.Image] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.things = [path for path in self.files if path.suffix == ".png" and _has_alpha(path)]
        alpha = set(self.things)
        self.whole = [path for path in self.files if path not in alpha]
        if not self.whole or not self.things:
            raise InputError(
                "pictures without faces must be some whole ones and some cut out (PNG with transparency), got "
                f"{len(self.whole)} and {len(self.things)}: give a folder with both"
            )

    def picture(self, rng: np.random.Generator) -> Image.Image:
        """A whole one, at most 512 px."""
        return self._load(self.whole[rng.integers(len(self.whole))], 512, "RGB")

    def thing(self, rng: np.random.Generator) -> Image.Image:
        """One that is cut out, at most 256 px."""
        return self._load(self.things[rng.integers(len(self.things))], 256, "RGBA")

    def _load(self, path: Path, side: int, mode: str) -> Image.Image:
        if path not in self._read:
            with Image.open(path) as opened:
                opened.draft("RGB", (side, side))
                image = opened.convert(mode)
            image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2)
            self._read[path] = image
        return self._read[path]


def _has_alpha(path: Path) -> bool:
    with Image.open(path) as opened:
        return opened.mode == "RGBA"


class Scenes:
    """Draws scenes.

    Args:
        bank: faces.
        faceless: what is behind, beside and before them.
    """

    def __init__(self, bank: FaceBank, faceless: Faceless) -> None:
        self.bank, self.faceless = bank, faceless

    def __call__(
        self, seed: Sequence[int], shares: np.ndarray | None = None, count: int = 1
    ) -> list[tuple[Tensor, Labels]]:
        """One scene, damaged `count` times.

        Putting a scene together takes longer than damaging it; every other time it is mirrored.

        Args:
            seed: numbers that tell it from all others.
            shares: of the bins of `EDGES` among the faces' sizes; None draws all alike.
            count: how many pictures are made of it.

        Returns:
            (3,SIZE,SIZE) uint8 RGB and its faces, `count` times.
        """
        return _Scene(self, np.random.default_rng(seed), shares).draw(count)


class _Scene:
    """One scene while it is drawn."""

    def __init__(self, source: Scenes, rng: np.random.Generator, shares: np.ndarray | None) -> None:
        self.source, self.rng = source, rng
        self.shares = np.full(len(EDGES) - 1, 1 / (len(EDGES) - 1)) if shares is None else shares
        self.torch_rng = torch.Generator().manual_seed(int(rng.integers(2**31)))
        self.owner = Image.new("I", (SIZE, SIZE), 0)  # whose face a pixel shows
        self.faces: list[dict] = []

    def draw(self, count: int) -> list[tuple[Tensor, Labels]]:
        rng = self.rng
        self.canvas = self.background()
        for _ in range(rng.integers(3) if rng.random() < 0.5 else 0):
            self.add_thing()
        kind = rng.choice(["none", "one", "few", "crowd", "close"], p=[0.12, 0.28, 0.36, 0.16, 0.08])
        {
            "none": self.add_wrong,
            "one": self.add_one,
            "few": self.add_few,
            "crowd": self.add_crowd,
            "close": self.add_close,
        }[kind]()
        if rng.random() < 0.25:
            self.add_wrong()
        if rng.random() < 0.2:
            self.add_thing(before=True)
        drawn = []
        for number in range(count):
            if number:
                self.mirror()
            drawn.append(self.finished(*self.damaged_scene()))
        return drawn

    def mirror(self) -> None:
        """Swap the scene's left and right."""
        self.canvas = self.canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        self.owner = self.owner.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for face in self.faces:
            face["points"] = face["points"][MIRROR] * [-1, 1] + [SIZE, 0]
            face["pose"] = face["pose"] * np.float32([-1, 1, -1])

    # ---- what is pasted

    def background(self) -> Image.Image:
        rng = self.rng
        kind = rng.random()
        if kind < 0.68:
            return _random_crop(self.source.faceless.picture(rng), rng)
        if kind < 0.8:
            return clouds(rng)
        if kind < 0.87:
            return gradient(rng)
        if kind < 0.94:
            return pattern(rng)
        return written(rng)

    def add_thing(self, before: bool = False) -> None:
        """A thing that is no face; `before` puts it over what is there."""
        rng = self.rng
        thing = self.source.faceless.thing(rng)
        side = SIZE * float(np.exp(rng.uniform(np.log(0.08), np.log(0.5 if before else 1.2))))
        scale = side / max(thing.size)
        self.place(
            thing,
            _turned(rng.uniform(-180, 180) if rng.random() < 0.4 else 0.0, scale, thing.size, rng.uniform(0, SIZE, 2)),
        )

    def add_wrong(self) -> None:
        """One to three patches as faces are pasted, with no face in them."""
        rng = self.rng
        for _ in range(rng.integers(1, 4)):
            image, mesh, _ = self.source.bank.draw(rng)
            image = (
                wrong(image, mesh, rng) if rng.random() < 0.7 else _random_crop(self.source.faceless.picture(rng), rng)
            )
            side = self.size()[0] * CROP_SIDE
            image.putalpha(mask(rng, image.width))
            self.place(image, _turned(turn(rng), side / image.width, image.size, rng.uniform(0, SIZE, 2)))

    def add_one(self) -> None:
        self.add_face(self.size(), self.rng.uniform(0.08, 0.92, 2) * SIZE)

    def add_few(self) -> None:
        for _ in range(self.rng.integers(2, 7)):
            self.add_face(self.size(), self.rng.uniform(0.03, 0.97, 2) * SIZE)

    def add_crowd(self) -> None:
        """Rows of faces of about one size, as in a group photo or on a contact sheet."""
        rng = self.rng
        size, number = self.size()
        size = min(size, 75.0)
        step = size * rng.uniform(1.1, 2.4, 2)
        roll = turn(rng) if rng.random() < 0.3 else 0.0
        style = rng.integers(2**31) if rng.random() < 0.5 else None
        start = rng.uniform(0, 1, 2) * step
        columns, rows = (max(1, min(int(SIZE / s) + 1, 5)) for s in step)
        tight = min(step) < 1.5 * size
        for y in range(rows):
            for x in range(columns):
                if rng.random() < 0.15:
                    continue
                middle = start + step * (x + 0.5 * (y % 2), y) + rng.normal(0, 0.06, 2) * step
                self.add_face((size * rng.uniform(0.85, 1.15), number), middle, roll + rng.normal(0, 6), style, tight)

    def add_close(self) -> None:
        """A face that fills the picture or more."""
        rng = self.rng
        size = float(np.exp(rng.uniform(np.log(170), np.log(700))))
        self.add_face((size, len(EDGES) - 2), rng.uniform(0.2, 0.8, 2) * SIZE)

    def size(self) -> tuple[float, int]:
        """Pixels of a face, and its bin."""
        number = int(self.rng.choice(len(self.shares), p=self.shares))
        low, high = np.log(EDGES[number]), np.log(EDGES[number + 1])
        return float(np.exp(self.rng.uniform(low, high))), number

    def add_face(
        self,
        size: tuple[float, int],
        middle: np.ndarray,
        roll: float | None = None,
        style: int | None = None,
        tight: bool = False,
    ) -> None:
        """Paste a face of a size with its middle at a place; `style` repeats a way to cut it out, `tight` is a head."""
        rng = self.rng
        image, mesh, detail = self.source.bank.draw(rng)
        if (factor := int(image.width / (1.4 * CROP_SIDE * size[0]))) > 1:
            image = image.reduce(min(factor, 8))
        if rng.random() < 0.2:
            image, mesh = childlike(image, mesh, rng)
        image = recoloured(image, rng)
        own = rng if style is None else np.random.default_rng(style)
        image.putalpha(mask(own, image.width, tight))
        span = mesh[:, :2].max(0) - mesh[:, :2].min(0)
        scale = size[0] / (span.mean() * image.width)
        stretch = rng.normal(1, 0.05) if rng.random() < 0.5 else 1.0
        affine = _turned(turn(rng) if roll is None else roll, scale, image.size, middle, mesh[:, :2].mean(0), stretch)
        points = mesh[:, :2] * image.width @ affine[:, :2].T + affine[:, 2]
        self.place(image, affine)
        oval = [tuple(point) for point in points[list(FACE_OVAL)]]
        number = len(self.faces) + 1
        ImageDraw.Draw(self.owner).polygon(oval, fill=number)
        if rng.random() < 0.12:
            self.cover(points)
        depth = mesh[:, 2:] * image.width * scale
        pose = pose_from_mesh(np.concatenate([points, depth], 1)[None])[0]
        self.faces.append(
            {"points": points, "oval": oval, "pose": pose, "bin": size[1], "size": size[0], "detail": detail}
        )

    def cover(self, points: np.ndarray) -> None:
        """Put something before a part of a face: a bar, a thing, a piece of something else."""
        rng = self.rng
        low, high = points.min(0), points.max(0)
        side = (high - low).mean()
        where = low + rng.uniform(0.1, 0.9, 2) * (high - low)
        if rng.random() < 0.4:
            width, height = side * rng.uniform(0.5, 1.3), side * rng.uniform(0.12, 0.35)
            thing = Image.new("RGBA", (max(2, round(width)), max(2, round(height))), (*_colour(rng), 255))
            scale = 1.0
        else:
            thing = self.source.faceless.thing(rng)
            scale = side * rng.uniform(0.35, 0.8) / max(thing.size)
        self.place(thing, _turned(rng.uniform(-30, 30), scale, thing.size, where))

    def place(self, image: Image.Image, affine: np.ndarray) -> None:
        """Paste a picture with transparency, moved by `affine` (2,3), its pixels to those of the scene."""
        corners = (
            np.array([[0, 0, 1], [image.width, 0, 1], [0, image.height, 1], [image.width, image.height, 1]]) @ affine.T
        )
        low = np.floor(np.maximum(corners.min(0), 0)).astype(int)
        high = np.ceil(np.minimum(corners.max(0), SIZE)).astype(int)
        if (high <= low).any():
            return
        scale = math.sqrt(abs(np.linalg.det(affine[:, :2])))
        factor = max(1, int(1 / max(scale, 1e-3) + 0.3))
        factor = min(factor, max(1, min(image.size) // 4))
        if factor > 1:
            image = image.reduce(factor)
        affine = affine.copy()
        affine[:, :2] *= factor
        affine[:, 2] -= low
        inverse = np.linalg.inv(np.vstack([affine, [0, 0, 1]]))[:2]
        size = tuple((high - low).tolist())
        moved = image.transform(size, Image.Transform.AFFINE, tuple(inverse.ravel()), Image.Resampling.BILINEAR)
        alpha = moved.getchannel("A")
        box = tuple(low.tolist())
        self.canvas.paste(moved.convert("RGB"), box, alpha)
        self.owner.paste(0, (*box, *high.tolist()), alpha.point(SOLID))

    # ---- what happens to it

    def damaged_scene(self) -> tuple[Tensor, float]:
        """The scene, damaged as a whole, and the share of its pixels' side that the damage left."""
        rng = self.rng
        image = self.canvas
        if rng.random() < 0.25:
            image = image.convert("L").convert("RGB")
        if rng.random() < 0.2:
            image = Image.eval(image, _curve(rng))
        if rng.random() < 0.12:
            image = over_sharpened(image, rng)
        pixels = _to_tensor(image)
        recipe = _drawn(WHOLE, rng)
        if recipe == "none":
            return pixels, 1.0
        damaged, drawn = degrade(pixels[None], recipe, self.torch_rng)
        return damaged[0], min(1.0, 512 / max(drawn[0].get("factor", 1.0), 1.0) / SIZE)

    def finished(self, pixels: Tensor, scale: float) -> tuple[Tensor, Labels]:
        """Labels of what can still be seen; then the whole scene turned by quarters, now and then."""
        owner = np.asarray(self.owner)
        faces = self.faces
        points = np.stack([face["points"] for face in faces]) if faces else np.zeros((0, 468, 2))
        boxes = np.concatenate([points.min(1), points.max(1)], 1) if faces else np.zeros((0, 4))
        shown = np.array([(owner == i + 1).sum() / max(_area(face["oval"]), 1) for i, face in enumerate(faces)])
        left = np.array([min(face["detail"], face["size"] * scale) for face in faces])
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((middles >= 0) & (middles < SIZE)).all(1)
        in_range = np.array([face["size"] for face in faces]) < EDGES[-1]
        asked = (shown >= LEAST_SHOWN) & (left >= SMALLEST) & inside & in_range if faces else np.zeros(0, bool)
        labels = Labels(
            boxes=boxes.astype(np.float32),
            points=five_points(np.concatenate([points, points[..., :1]], 2)).astype(np.float32),
            pose=np.stack([face["pose"] for face in faces]).astype(np.float32)
            if faces
            else np.zeros((0, 3), np.float32),
            shown=np.minimum(shown, 1).astype(np.float32),
            asked=asked,
            bins=np.array([face["bin"] for face in faces], int),
        )
        pixels = (pixels * 255).round().clamp(0, 255).byte()
        for _ in range(self.rng.integers(4) if self.rng.random() < 0.12 else 0):
            pixels, labels = quarter_turn(pixels, labels)
        return pixels, labels


def quarter_turn(pixels: Tensor, labels: Labels) -> tuple[Tensor, Labels]:
    """A square picture (3,S,S) turned clockwise by a quarter, with its faces."""
    side = pixels.shape[-1]

    def moved(xy: np.ndarray) -> np.ndarray:
        return np.stack([side - xy[..., 1], xy[..., 0]], -1)

    corners = moved(labels.boxes.reshape(-1, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    pose = labels.pose.copy()
    pose[:, 2] = (pose[:, 2] + 90 + 180) % 360 - 180
    turned = Labels(boxes, moved(labels.points), pose, labels.shown, labels.asked, labels.bins)
    return torch.rot90(pixels, -1, (1, 2)).contiguous(), turned


# ---- pure drawing


def turn(rng: np.random.Generator) -> float:
    """Degrees by which a face is turned in the picture's plane: most a little; further than 45 is looked for apart."""
    if rng.random() < 0.85:
        return float(np.clip(rng.normal(0, 14), -45, 45))
    return float(rng.uniform(-60, 60))


def mask(rng: np.random.Generator, side: int, tight: bool = False) -> Image.Image:
    """How a crop is cut out, (side,side) "L": as the square that it is, with soft edges, or (`tight`) as a head."""
    kind = rng.uniform(0.55 if tight else 0, 1)
    if kind < 0.3:
        return Image.new("L", (side, side), 255)
    shape = Image.new("L", (side, side), 0)
    canvas = ImageDraw.Draw(shape)
    if kind < 0.55:
        inset = side * rng.uniform(0.02, 0.16, 4)
        canvas.rectangle((inset[0], inset[1], side - inset[2], side - inset[3]), fill=255)
    elif kind < 0.9:
        x, y = side * rng.uniform(0.36, 0.5), side * rng.uniform(0.43, 0.52)
        canvas.ellipse((side / 2 - x, side * 0.5 - y, side / 2 + x, side * 0.5 + y), fill=255)
        if rng.random() < 0.5:  # with shoulders
            canvas.rectangle((side * rng.uniform(0, 0.2), side * rng.uniform(0.85, 0.95), side, side), fill=255)
    else:
        x, y = side * rng.uniform(0.29, 0.34), side * rng.uniform(0.34, 0.4)
        canvas.ellipse((side / 2 - x, side * 0.57 - y, side / 2 + x, side * 0.57 + y), fill=255)
    return shape.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.004, 0.05)))


def childlike(image: Image.Image, mesh: np.ndarray, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """A face with a higher forehead and a shorter chin, or the other way round."""
    amount = rng.uniform(-0.6, 1.0)
    old = np.array([0, 0.28, 0.48, 0.72, 0.9, 1.0])
    new = old + amount * np.array([0, -0.02, 0.05, 0.0, -0.04, 0])
    side = image.width
    strips = []
    for i in range(len(old) - 1):
        y0, y1 = round(new[i] * side), round(new[i + 1] * side)
        top, bottom = old[i] * side, old[i + 1] * side
        strips.append(((0, y0, side, y1), (0, top, 0, bottom, side, bottom, side, top)))
    warped = image.transform(image.size, Image.Transform.MESH, strips, Image.Resampling.BILINEAR)
    moved = mesh.copy()
    moved[:, 1] = np.interp(mesh[:, 1], old, new) + np.where(mesh[:, 1] > 1, mesh[:, 1] - 1, np.minimum(mesh[:, 1], 0))
    return warped, moved


def wrong(image: Image.Image, mesh: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A head without a face: its parts in other places, smoothed away, or covered by something of its own picture."""
    side = image.width
    low, high = (side * mesh[:, :2].min(0)).astype(int), (side * mesh[:, :2].max(0)).astype(int)
    box = tuple(np.clip([*low, *high], 0, side).tolist())
    face = image.crop(box)
    kind = rng.random()
    if kind < 0.35:  # cut into tiles and mixed
        count = int(rng.integers(3, 6))
        width, height = face.width // count, face.height // count
        tiles = [
            face.crop((x * width, y * height, (x + 1) * width, (y + 1) * height))
            for y in range(count)
            for x in range(count)
        ]
        order = rng.permutation(len(tiles))
        for k, tile in enumerate(tiles):
            x, y = order[k] % count, order[k] // count
            face.paste(
                tile.rotate(float(rng.integers(4) * 90)).resize((width, height)), (int(x * width), int(y * height))
            )
    elif kind < 0.6:  # all hair
        hair = image.crop((side // 3, 0, side - side // 3, max(box[1] - 2, side // 8))).resize(face.size)
        face = hair.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    elif kind < 0.8:  # skin and nothing else
        face = face.resize((4, 4), Image.Resampling.BOX).resize(face.size, Image.Resampling.BICUBIC)
    else:  # a part, as large as the whole
        part = [float(value) for value in rng.uniform(0, 0.6, 2)]
        width, height = face.width * 0.35, face.height * 0.3
        x, y = part[0] * face.width, part[1] * face.height
        return face.crop((round(x), round(y), round(x + width), round(y + height))).resize(
            image.size, Image.Resampling.BICUBIC
        )
    result = image.copy()
    soft = Image.new("L", face.size, 0)
    ImageDraw.Draw(soft).ellipse((0, 0, *face.size), fill=255)
    result.paste(face, box[:2], soft.filter(ImageFilter.GaussianBlur(face.width * 0.06)))
    return result


def recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Lighter, darker, flatter or tinted."""
    if rng.random() < 0.35:
        return image.convert("RGB")
    curves = _curve(rng)
    if rng.random() < 0.3:
        gains = rng.uniform(0.75, 1.2, 3)
        table = [min(255, int(curves(value) * gain)) for gain in gains for value in range(256)]
        return image.convert("RGB").point(table)
    return Image.eval(image.convert("RGB"), curves)


def over_sharpened(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """As a viewer or a website enlarges a small picture: square pixels, rings around edges, or plastic."""
    kind, small = rng.random(), [round(side / rng.uniform(1.5, 4)) for side in image.size]
    if kind < 0.35:
        return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)
    if kind < 0.75:
        large = image.resize(small, Image.Resampling.LANCZOS).resize(image.size, Image.Resampling.LANCZOS)
        return large.filter(ImageFilter.UnsharpMask(rng.uniform(1, 3), int(rng.integers(100, 350)), 0))
    return image.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.UnsharpMask(2, 120, 0))


def clouds(rng: np.random.Generator) -> Image.Image:
    """Soft coloured blotches of several sizes."""
    total = np.zeros((SIZE, SIZE, 3))
    for cells in (2, 4, 8, 16, 32, 64):
        small = (
            rng.uniform(0, 255, (cells, cells, 3))
            if rng.random() < 0.5
            else rng.uniform(0, 255, (cells, cells, 1)).repeat(3, 2)
        )
        layer = Image.fromarray(small.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        total += np.asarray(layer) * rng.uniform(0, 1) / math.sqrt(cells)
    low, high = np.sort(rng.uniform(0, 255, 2))
    total = (total - total.min()) / max(np.ptp(total), 1e-6)
    return Image.fromarray((low + total * (high - low)).astype(np.uint8))


def gradient(rng: np.random.Generator) -> Image.Image:
    """One colour that runs into another, as behind a studio portrait."""
    corners = np.array([[_colour(rng), _colour(rng)], [_colour(rng), _colour(rng)]], np.uint8)
    return Image.fromarray(corners).resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def pattern(rng: np.random.Generator) -> Image.Image:
    """Woven, striped or tiled."""
    side = int(rng.integers(4, 40))
    tile = rng.integers(0, 256, (side, side, 3), np.uint8)
    if rng.random() < 0.5:
        tile[:] = tile[:1]
    image = Image.fromarray(tile).resize((side * 2, side * 2), Image.Resampling.BICUBIC)
    whole = Image.new("RGB", (2 * SIZE, 2 * SIZE))
    for y in range(0, 2 * SIZE, image.height):
        for x in range(0, 2 * SIZE, image.width):
            whole.paste(image, (x, y))
    turned = whole.rotate(rng.uniform(0, 90), Image.Resampling.BILINEAR)
    return turned.crop((SIZE // 2, SIZE // 2, SIZE // 2 + SIZE, SIZE // 2 + SIZE))


def written(rng: np.random.Generator) -> Image.Image:
    """Letters and lines on paper or on a screen."""
    paper, ink = _colour(rng), _colour(rng)
    image = Image.new("RGB", (SIZE, SIZE), paper)
    canvas = ImageDraw.Draw(image)
    height = int(rng.integers(8, 30))
    for y in range(int(rng.integers(height)), SIZE, height + 4):
        text = "".join(WORDS[i] for i in rng.integers(0, len(WORDS), 60))
        canvas.text((int(rng.integers(-20, 20)), y), text, fill=ink, font=_font(height // 4 * 4))
    for _ in range(rng.integers(6)):
        x0, y0, x1, y1 = rng.uniform(0, SIZE, 4)
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        shape = canvas.ellipse if rng.random() < 0.5 else canvas.rectangle
        shape(
            box, outline=_colour(rng), width=int(rng.integers(1, 5)), fill=_colour(rng) if rng.random() < 0.3 else None
        )
    return image


@cache
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)


def _random_crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A square of a picture, anywhere, (SIZE,SIZE); up to three times as large as it was."""
    shortest = min(image.size)
    side = float(np.exp(rng.uniform(np.log(max(0.25 * shortest, 48)), np.log(max(shortest, 49)))))
    x, y = rng.uniform(0, image.width - min(side, shortest)), rng.uniform(0, image.height - min(side, shortest))
    side = min(side, shortest)
    crop = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side), reducing_gap=2)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _turned(
    degrees: float,
    scale: float,
    size: tuple[int, int],
    middle: np.ndarray,
    about: Sequence[float] = (0.5, 0.5),
    stretch: float = 1.0,
) -> np.ndarray:
    """(2,3): a picture of `size`, stretched, scaled, turned clockwise, its point `about` (in sides) at `middle`."""
    angle = math.radians(degrees)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = linear @ np.diag([math.sqrt(stretch), 1 / math.sqrt(stretch)])
    return np.concatenate([linear, (np.asarray(middle) - linear @ (np.asarray(about) * size))[:, None]], 1)


def damage_faces(images: Tensor, copies: int, seed: int) -> tuple[Tensor, Tensor]:
    """Aligned faces as damage leaves them before they come into a picture.

    Args:
        images: (N,S,S,3) uint8 RGB.
        copies: damaged ones of each.
        seed: of the damage.

    Returns:
        (N,copies,S/2,S/2,3) uint8, and how many pixels of the face's side (N,copies) are left.
    """
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    damaged, left = [], []
    for image in images:
        small = functional.avg_pool2d(image.permute(2, 0, 1)[None].float() / 255, 2)
        for _ in range(copies):
            pixels, drawn = degrade(small, _drawn(DAMAGE, rng), torch_rng)
            damaged.append((pixels[0] * 255).round().byte().permute(1, 2, 0))
            left.append(512 / max(drawn[0].get("factor", 1.0), 1.0) / CROP_SIDE)
    side = images.shape[1] // 2
    return torch.stack(damaged).view(-1, copies, side, side, 3), torch.tensor(left).view(-1, copies)


def _drawn(shares: Sequence[tuple[str, float]], rng: np.random.Generator) -> str:
    names, chances = zip(*shares, strict=True)
    return str(rng.choice(names, p=chances))


def _area(polygon: Sequence[tuple[float, float]]) -> float:
    x, y = np.array(polygon).T
    return abs(float((x * np.roll(y, 1) - y * np.roll(x, 1)).sum())) / 2


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _curve(rng: np.random.Generator) -> Callable[[int], int]:
    """Gain, lift and bend of brightness, of numbers up to 255."""
    low, high = rng.uniform(0, 90), rng.uniform(110, 255)
    bend = float(np.exp(rng.normal(0, 0.4)))
    return lambda value: int(low * (high < 200) + (value / 255) ** bend * (high - low * (high < 200)))


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _to_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())
