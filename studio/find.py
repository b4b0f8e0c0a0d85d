"""Finding faces: a detector looks at the whole photo, then the mesh looks at what it found.

1. A detector (`studio.detect`) says where faces may be, how they are turned, and how surely.
2. `place`: the mesh on every candidate, twice, because the second crop is cut better.
3. What neither of them is sure of is dropped, and what is found a second time. A face of which the detector is sure and
   the mesh sees nothing gets the mean face, laid on the detector's five points.
4. `steady`: the mesh of what is left is the mean over eight crops, because its points move with the crop.
5. `look_again`, where nothing was found: with dots, tint and a tight frame taken away.
6. Faces come largest first, and those of about one size as one reads.

Networks run in their own type; places are always float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio import weights
from studio.detect import BlazePair, Detected, Detector, Together
from studio.errors import InputError
from studio.faces.align import transform_points, warp
from studio.faces.faces import Faces
from studio.faces.given import aligned_frame, check_aligned, check_boxes, mean_mesh_in, mean_mesh_on
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.pose import pose_from_mesh
from studio.faces.templates import five_points
from studio.networks.detector import FaceDetector, overlap, same_face
from studio.networks.finder import FinderNet
from studio.networks.mesh import SIZE as MESH_SIZE
from studio.networks.mesh import FaceMesh

MIN_SCORE = 0.5
MIN_PRESENCE = 0.5
# A detector as sure as this needs no mesh to confirm it: beside other faces, and where there is no other.
SURE_SCORE, SURE_ALONE = 0.8, 0.62
# The second look: long sides in pixels, and the least presence, higher because blur invites false faces.
DETAILS, AGAIN_PRESENCE = (400, 200, 100), 0.85
# What is less than a face but more than nothing: told apart, so that somebody can look.
DOUBTFUL_SCORE, DOUBTFUL_OVERLAP = 0.45, 0.1
# The mesh was trained on crops this much larger than the face.
MARGIN = 1.5
# The crops of `steady`: moved along and across the eye line by shares of the face, and of these sizes.
SHIFTS, ZOOMS = (-0.05, 0.05), (0.94, 1.06)
# Where the caller points, a detector may doubt: what it sees there is more than nothing. Of what is found around such a
# box, what shares this much with it (intersection over union) is meant.
POINTED_SCORE, POINTED_OVERLAP = 0.2, 0.2
# The box of the mesh and the eyes in an FFHQ-aligned crop, shares of its side.
ALIGNED_BOX, ALIGNED_EYES = (0.3, 0.3, 0.7, 0.82), ((0.39, 0.48), (0.61, 0.48))
# Faces at least this large, relative to the largest of them, are of about one size: numbered as one reads. A row is
# this share of a face high.
ALIKE, ROW = 0.75, 0.6
BATCH = 16  # crops at once; with more, their features leave the processor's cache and it gets slower


class FaceFinder:
    """Finds faces in a photo.

    Args:
        detector: `Together`, or anything that answers as `studio.detect.Detector` says.
        mesh: the face mesh.
    """

    def __init__(self, detector: Detector, mesh: FaceMesh) -> None:
        self.detector, self.mesh = detector, mesh.eval()

    @classmethod
    def from_pretrained(cls, folder: Path | None = None) -> FaceFinder:
        """The finder with the weights of the weight store.

        Args:
            folder: of another network of ours, such as `RUN/finder` of a training.

        Raises:
            MissingWeightsError: they are not on this machine and could not be fetched.
        """
        net = FinderNet.from_pretrained(folder or weights.path("finder"))
        return cls(Together(net.to(memory_format=torch.channels_last), *published()), mesh())

    @classmethod
    def with_blaze(cls) -> FaceFinder:
        """The same mesh after the published detectors alone, to compare with.

        Raises:
            MissingWeightsError: they are not on this machine and could not be fetched.
        """
        return cls(BlazePair(*published()), mesh())

    def to(self, device: torch.device | str) -> FaceFinder:
        """Moves the networks; returns self."""
        self.detector.to(device)
        self.mesh.to(device)
        return self

    @torch.inference_mode()
    def __call__(self, image: Tensor, *, min_score: float = MIN_SCORE) -> Faces:
        """Finds the faces of one photo.

        Args:
            image: (3,H,W) float32 RGB in [0,1].
            min_score: least detector score in [0,1].

        Returns:
            Faces in pixels of the photo, in `reading_order`; boxes span the mesh. Empty when there is none.

        Raises:
            InputError: the image or `min_score` is not as said.
        """
        if not 0 <= min_score <= 1:
            raise InputError(f"min_score must be in [0,1], got {min_score}")
        image = self._taken(image)
        found = self.detector(image, min(min_score, DOUBTFUL_SCORE))
        faces = self.confirm(image, found[found.scores >= min_score])
        if not len(faces):
            faces = self.look_again(image, min_score)
        faces = faces[reading_order(faces.boxes)]
        apart = overlap(found.boxes.float().cpu(), torch.from_numpy(faces.boxes)) <= DOUBTFUL_OVERLAP
        return replace(faces, doubtful=found.boxes.float().cpu()[apart.all(1)].numpy())

    @torch.inference_mode()
    def given(self, image: Tensor, boxes: Sequence[Sequence[float]] | np.ndarray) -> Faces:
        """The faces that the caller points at, whatever the networks think of them.

        In each box the mesh is placed on what the detectors see there, then on the box itself, upright and turned by
        quarters. Where it sees no face, the mean face is laid on the detector's points, or upright into the box.

        Args:
            image: (3,H,W) float32 RGB in [0,1].
            boxes: (N,4), (x0, y0, x1, y1) in pixels of the photo, about as the faces fill them (forehead to chin).

        Returns:
            Faces in pixels of the photo, in the order of the boxes; `scores` are 0 where no detector sees one, and
            `mesh_scores` are as they are.

        Raises:
            InputError: the image or a box is not as said.
        """
        image = self._taken(image)
        given = torch.from_numpy(check_boxes(boxes, *image.shape[-2:])).to(image)
        return Faces.cat([self._point_out(image, box) for box in given])

    @torch.inference_mode()
    def aligned(self, image: Tensor) -> Faces:
        """The face of an aligned picture, as FFHQ or published restorers cut it; see `aligned_frame`.

        Args:
            image: (3,S,S) float32 RGB in [0,1].

        Returns:
            One face, with `frames`; where the mesh sees none, it is the mean face.

        Raises:
            InputError: the image is not as said.
        """
        image = self._taken(image)
        check_aligned(*image.shape[-2:])
        side = image.new_tensor(image.shape[:0:-1])
        box, eyes = side.repeat(2) * image.new_tensor(ALIGNED_BOX), side * image.new_tensor(ALIGNED_EYES)
        mesh, presence = self.place(image, box[None], eyes[None])
        seen = bool(presence >= MIN_PRESENCE)
        placed = self.steady(image, mesh).float().cpu().numpy() if seen else None
        frame = aligned_frame(None if placed is None else placed[0], *image.shape[-2:])
        if placed is None:
            placed = mean_mesh_on(transform_points(five_points(MEAN_MESH[None]), frame[None]))
        return spanned(placed, torch.zeros(1), presence, given=np.ones(1, bool), frames=frame[None])

    @torch.inference_mode()
    def follow(self, image: Tensor, mesh: np.ndarray) -> tuple[np.ndarray, float]:
        """The mesh of a face that was hardly elsewhere a moment ago: one crop and no detector.

        Args:
            image: (3,H,W) float32 RGB in [0,1].
            mesh: (468,3) where the face was, pixels of the picture.

        Returns:
            (468,3) float32 pixels of the picture, and how sure the mesh is in [0,1] that a face is there.

        Raises:
            InputError: the image is not as said.
        """
        image = self._taken(image)
        placed, presence = self._mesh(image, around(torch.from_numpy(mesh).to(image)[None]))
        return placed[0].float().cpu().numpy(), float(presence[0])

    def _point_out(self, image: Tensor, box: Tensor) -> Faces:
        """`given`, for one box (4,)."""
        side, middle = (box[2:] - box[:2]).amax(), (box[:2] + box[2:]) / 2
        low, high = ((middle + way * side).round().long().tolist() for way in (-1, 1))
        x0, y0, x1, y1 = (max(n, 0) for n in (*low, *high))
        found = self.detector(image[:, y0:y1, x0:x1], POINTED_SCORE).shifted(box.new_tensor([x0, y0]))
        near = found[overlap(found.boxes, box[None])[:, 0] > POINTED_OVERLAP][:1]
        across = side * box.new_tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])  # eye lines of four turns
        starts, eyes = box.expand(4, 4), torch.stack([middle - across / 4, middle + across / 4], 1)
        score = torch.zeros(1)
        if len(near):
            score = near.scores
            starts, eyes = torch.cat([near.boxes, starts]), torch.cat([near.points[:, :2], eyes])
        meshes, presences = self.place(image, starts, eyes)
        presence, chosen = presences.max(0, keepdim=True)
        if presence >= MIN_PRESENCE:
            mesh = self.steady(image, meshes[chosen])
        elif len(near):
            mesh = self.mean_faces(near)
        else:
            mesh = mean_mesh_in(box[None].cpu().numpy())
        return spanned(mesh, score, presence, given=np.ones(1, bool))

    def _taken(self, image: Tensor) -> Tensor:
        """The photo, checked, where and as the networks take it."""
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise InputError(f"the photo must be (3,H,W) float in [0,1], got {tuple(image.shape)} {image.dtype}")
        return image.to(self.mesh.device, torch.float32)

    def look_again(self, image: Tensor, min_score: float) -> Faces:
        """Looks at the photo with its halftone dots, tint and tight framing taken away.

        Screens of newsprint, tinted paper and faces that fill the picture hide from the networks. The mesh has to be
        surer here.

        Args:
            image: (3,H,W) RGB in [0,1].
            min_score: least detector score in [0,1].

        Returns:
            As `confirm`; scores are those of the picture so prepared.
        """
        height, width = image.shape[-2:]
        grey = image.mean(0).expand(1, 3, -1, -1)
        for detail in DETAILS:
            scale = max(height, width) / detail
            size = [max(1, round(n / scale)) for n in (height, width)]
            smooth = F.interpolate(grey, size, mode="bilinear", antialias=True, align_corners=False)
            border = detail // 2
            framed = F.pad(smooth, [border] * 4, value=0.5)[0]
            faces = self.confirm(framed, self.detector(framed, min_score), AGAIN_PRESENCE)
            if len(faces):  # measured in the framed picture
                mesh, boxes = (faces.mesh - [border, border, 0]) * scale, (faces.boxes - border) * scale
                return replace(faces, boxes=boxes.astype(np.float32), mesh=mesh.astype(np.float32))
        return Faces.empty()

    def confirm(self, image: Tensor, found: Detected, presence_needed: float | None = None) -> Faces:
        """Places the mesh on what a detector found, and drops what is no face, or the same face again.

        Args:
            image: (3,H,W) RGB in [0,1].
            found: best first.
            presence_needed: least presence score of the mesh in [0,1]; None: `MIN_PRESENCE`, or a very sure detector.

        Returns:
            Faces in pixels of the photo, in the order of `found`.
        """
        if not len(found):
            return Faces.empty()
        mesh, presence = self.place(image, found.boxes, found.points[:, :2])
        seen = presence >= (MIN_PRESENCE if presence_needed is None else presence_needed)
        sure = found.scores >= (SURE_SCORE if seen.any() else SURE_ALONE)
        kept = torch.nonzero(seen | (sure & (presence_needed is None))).squeeze(1)
        found, mesh, presence, seen = found[kept], mesh[kept], presence[kept], seen[kept]
        mesh = torch.where(seen[:, None, None], mesh, self.mean_faces(found).to(mesh))
        # Each face once: two detections can lead to one mesh.
        kept = unique(torch.cat([mesh[..., :2].amin(1), mesh[..., :2].amax(1)], 1), found.scores)
        found, mesh, presence, seen = found[kept], mesh[kept], presence[kept], seen[kept]
        if seen.any():
            mesh[seen] = self.steady(image, mesh[seen])
        return spanned(mesh, found.scores, presence, quality=found.quality.cpu().numpy())

    def mean_faces(self, found: Detected) -> Tensor:
        """The mean face on the points of every detection, turned as the detector sees it: (N,468,3)."""
        points, pose = found.points.cpu().numpy(), found.pose.cpu().numpy()
        return torch.from_numpy(mean_mesh_on(points, pose=pose))

    def place(self, image: Tensor, boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Places the mesh on each face, twice.

        Args:
            image: (3,H,W) RGB in [0,1].
            boxes: (N,4) xyxy, pixels of the photo.
            points: (N,K,2) of which the first two are the right and left eye, pixels of the photo.

        Returns:
            Meshes (N,468,3) in pixels of the photo and the mesh's presence score (N,) in [0,1].
        """
        centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1)
        mesh, _ = self._mesh(image, square(centre, MARGIN * side, level(points[:, 1] - points[:, 0])))
        return self._mesh(image, around(mesh))

    def steady(self, image: Tensor, mesh: Tensor) -> Tensor:
        """The mean of the meshes on eight crops, moved and zoomed a little about each face.

        Args:
            image: (3,H,W) RGB in [0,1].
            mesh: (N,468,3) from `place`, pixels of the photo.

        Returns:
            (N,468,3), pixels of the photo. It hangs less on where `place` was started; a test holds that.
        """
        crops = [around(mesh, (x, y), zoom) for x in SHIFTS for y in SHIFTS for zoom in ZOOMS]
        meshes, _ = self._mesh(image, torch.cat(crops))
        return meshes.view(len(crops), *mesh.shape).mean(0)

    def _mesh(self, image: Tensor, crop_to_image: Tensor) -> tuple[Tensor, Tensor]:
        """The mesh network on crops (N,2,3) of the photo; as `place`."""
        meshes, logits = [], []
        for part in crop_to_image.split(BATCH):
            mesh, logit = self.mesh(warp(image, part, MESH_SIZE).to(self.mesh.dtype))
            meshes.append(mesh.to(image))
            logits.append(logit.to(image))
        mesh = torch.cat(meshes)
        xy = mesh[..., :2] @ crop_to_image[..., :2].mT + crop_to_image[:, None, :, 2]
        z = mesh[..., 2:] * crop_to_image[:, None, :, 0].norm(dim=-1, keepdim=True)
        return torch.cat([xy, z], -1), torch.cat(logits).sigmoid()


def spanned(mesh: Tensor | np.ndarray, scores: Tensor, presence: Tensor, **more: np.ndarray) -> Faces:
    """`Faces` of meshes (N,468,3), whose boxes they span, with further fields."""
    if isinstance(mesh, Tensor):
        mesh = mesh.detach().float().cpu().numpy()
    boxes = np.concatenate([mesh[..., :2].min(1), mesh[..., :2].max(1)], 1)
    scores, presence = (x.detach().float().cpu().numpy() for x in (scores, presence))
    return Faces(boxes, scores, mesh, presence, pose_from_mesh(mesh), **more)


def unique(boxes: Tensor, scores: Tensor) -> list[int]:
    """Indices of the boxes (N,4) that are not drawn around the face of a better one, in order."""
    same = same_face(boxes, boxes)
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not same[i, kept].any():
            kept.append(i)
    return sorted(kept)


def reading_order(boxes: np.ndarray) -> list[int]:
    """Order of faces by their boxes (N,4): largest first, and those of about one size row by row, from the left."""
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    left = np.argsort(-sides, kind="stable").tolist()
    order: list[int] = []
    while left:
        alike = [i for i in left if sides[i] >= ALIKE * sides[left[0]]]
        left = [i for i in left if i not in alike]
        order += row_by_row(alike, (boxes[:, :2] + boxes[:, 2:]) / 2, ROW * sides[alike[0]])
    return order


def row_by_row(indices: list[int], middles: np.ndarray, height: float) -> list[int]:
    """Indices of places (N,2), by rows that are that high, and from the left in each."""
    rows: list[list[int]] = []
    for i in sorted(indices, key=lambda i: middles[i, 1]):
        if rows and middles[i, 1] - middles[rows[-1], 1].mean() < height:
            rows[-1].append(i)
        else:
            rows.append([i])
    return [i for row in rows for i in sorted(row, key=lambda i: middles[i, 0])]


def published() -> list[FaceDetector]:
    """BlazeFace in its two variants."""
    names = ("detector_full_range", "detector_back")
    nets = [FaceDetector.from_pretrained(weights.path(name)) for name in names]
    return [net.to(memory_format=torch.channels_last) for net in nets]


def mesh() -> FaceMesh:
    """The face mesh."""
    return FaceMesh.from_pretrained(weights.path("mesh")).to(memory_format=torch.channels_last)


def with_given(found: Faces, given: Faces) -> Faces:
    """The faces found and those that the caller pointed at, each once, in `reading_order`."""
    if not len(given):
        return found
    same = same_face(torch.from_numpy(found.boxes), torch.from_numpy(given.boxes)).numpy()  # (F, G)
    found = replace(found, given=found.given | same.any(1))
    together = Faces.cat([found, given[~same.any(0)]])
    return together[reading_order(together.boxes)]


def level(eyes: Tensor) -> Tensor:
    """Angle (N,) in radians of eye lines (N,2), from the eye left in the picture to the other one."""
    return torch.atan2(eyes[:, 1], eyes[:, 0])


def turn(angle: Tensor) -> Tensor:
    """Rotation matrices (N,2,2) by `angle` (N,) in radians, clockwise as seen with y downwards."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def around(mesh: Tensor, shift: tuple[float, float] = (0.0, 0.0), zoom: float = 1.0) -> Tensor:
    """Crops for the mesh, upright and of the size it was trained on, around meshes found before.

    Args:
        mesh: (N,468,3), pixels of the photo.
        shift: of the crop, along and across the eye line, in shares of the face.
        zoom: of its side.

    Returns:
        crop_to_image (N,2,3).
    """
    angle = level(mesh[:, [263, 362], :2].mean(1) - mesh[:, [33, 133], :2].mean(1))
    upright = mesh[..., :2] @ turn(angle)  # (N, 468, 2) in axes along and across the eye line
    low, high = upright.amin(1), upright.amax(1)
    side = (high - low).amax(1)
    centre = (low + high) / 2 + side[:, None] * low.new_tensor(shift)
    return square((centre[:, None] @ turn(angle).mT).squeeze(1), MARGIN * zoom * side, angle)


def square(centre: Tensor, side: Tensor, angle: Tensor) -> Tensor:
    """Crops for the mesh: centre (N,2), side (N,) and angle (N,) in the photo -> crop_to_image (N,2,3)."""
    linear = turn(angle) * (side / MESH_SIZE)[:, None, None]
    offset = centre[..., None] - linear.sum(-1, keepdim=True) * (MESH_SIZE / 2)
    return torch.cat([linear, offset], -1)
