"""Finding faces: two detectors look at the photo at several scales, then the mesh looks at what they found.

1. `views`: squares to look at; the whole photo, then overlapping tiles, smaller and smaller, so that a small face in a
   large photo is looked at too.
2. `detect`: both detectors on the whole photo, because they miss different faces, the better one at small faces on the
   tiles, and one suppression over all they found.
3. `place`: the mesh on every candidate, twice, because the second crop is cut better.
4. What the mesh does not take for a face, or finds a second time, is dropped.
5. `steady`: the mesh of what is left is the mean over eight crops, because its points move with the crop.
6. When nothing is left, `look_again` at the photo without what hides faces in old prints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio import weights
from studio.errors import InputError
from studio.faces.align import transform_points, warp
from studio.faces.faces import Faces
from studio.faces.given import aligned_frame, check_aligned, check_boxes, mean_mesh_in, mean_mesh_on
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.pose import pose_from_mesh
from studio.faces.templates import five_points
from studio.networks import detector as blaze
from studio.networks.detector import FaceDetector
from studio.networks.mesh import SIZE as MESH_SIZE
from studio.networks.mesh import FaceMesh

MIN_SCORE = 0.5
MIN_PRESENCE = 0.5
# The mesh doubts faces of 20 px and half profiles that a detector is sure of, and still lies well on them.
SURE_SCORE, SURE_PRESENCE = 0.85, 0.05
# The mesh was trained on crops this much larger than the face.
MARGIN = 1.5
# The crops of `steady`: moved along and across the eye line by shares of the face, and of these sizes.
SHIFTS, ZOOMS = (-0.05, 0.05), (0.94, 1.06)
# A tile side of 12.5 faces shows a face about 20 px wide to the 256 px detector, the least it can see.
FACES_PER_TILE = 12.5
SMALLEST_FACE = 28.0
SMALLEST_FACE_SHARE = 1 / 80
TILE_OVERLAP = 0.25
# The second look: long sides in pixels, and the least presence, higher because blur invites false faces.
DETAILS, AGAIN_PRESENCE = (400, 200, 100), 0.85
# Where the caller points, a detector may doubt: what it sees there is more than nothing. Of what is found around such a
# box, what shares this much with it (intersection over union) is meant.
POINTED_SCORE, POINTED_OVERLAP = 0.2, 0.2
POINTS_KNOWN = (0, 1, 2)  # of a detector's points, those that the mean face has too, in its order
# The box of the mesh and the eyes in an FFHQ-aligned crop, shares of its side.
ALIGNED_BOX, ALIGNED_EYES = (0.3, 0.3, 0.7, 0.82), ((0.39, 0.48), (0.61, 0.48))
# Squares at once; with more, their features leave the processor's cache and it gets slower.
BATCH = 2


class FaceFinder:
    """Finds faces in a photo.

    Args:
        full_range: BlazeFace, variant "full_range".
        back: BlazeFace, variant "back".
        mesh: the face mesh.

    Raises:
        InputError: the detectors are of other variants.
    """

    def __init__(self, full_range: FaceDetector, back: FaceDetector, mesh: FaceMesh) -> None:
        for net, variant in ((full_range, "full_range"), (back, "back")):
            if net.config.variant != variant:
                raise InputError(f"this place takes the {variant} detector, got {net.config.variant}: swap them")
        # Channels last makes the depthwise convolutions about 1.5 times faster on a CPU.
        self.detectors = [net.eval().to(memory_format=torch.channels_last) for net in (full_range, back)]
        self.mesh = mesh.eval().to(memory_format=torch.channels_last)

    @classmethod
    def from_pretrained(cls) -> FaceFinder:
        """The finder with the weights of the weight store.

        Raises:
            MissingWeightsError: they are not on this machine and could not be fetched.
        """
        return cls(
            FaceDetector.from_pretrained(weights.path("detector_full_range")),
            FaceDetector.from_pretrained(weights.path("detector_back")),
            FaceMesh.from_pretrained(weights.path("mesh")),
        )

    def to(self, device: torch.device | str) -> FaceFinder:
        """Moves the networks; returns self."""
        for net in (*self.detectors, self.mesh):
            net.to(device)
        return self

    @torch.inference_mode()
    def __call__(self, image: Tensor, *, min_score: float = MIN_SCORE) -> Faces:
        """Finds the faces of one photo.

        Args:
            image: (3,H,W) float32 RGB in [0,1].
            min_score: least detector score in [0,1].

        Returns:
            Faces in pixels of the photo, largest box first; boxes span the mesh. Empty when there is none.

        Raises:
            InputError: the image or `min_score` is not as said.
        """
        if not 0 <= min_score <= 1:
            raise InputError(f"min_score must be in [0,1], got {min_score}")
        image = self._taken(image)
        faces = self.look(image, min_score, MIN_PRESENCE)
        if not len(faces):
            faces = self.look_again(image, min_score)
        return faces

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
        boxes = torch.from_numpy(check_boxes(boxes, *image.shape[-2:])).to(image)
        return Faces.cat([self._point_out(image, box) for box in boxes])

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
        frame = aligned_frame(placed[0] if seen else None, *image.shape[-2:])
        if placed is None:
            placed = mean_mesh_on(transform_points(five_points(MEAN_MESH[None]), frame[None]))
        return self._faces(placed, torch.zeros(1), presence, given=np.ones(1, bool), frames=frame[None])

    def _point_out(self, image: Tensor, box: Tensor) -> Faces:
        """`given`, for one box (4,)."""
        side, middle = (box[2:] - box[:2]).amax(), (box[:2] + box[2:]) / 2
        low, high = ((middle + way * side).round().long().tolist() for way in (-1, 1))
        x0, y0, x1, y1 = (max(n, 0) for n in (*low, *high))
        boxes, scores, points = self.detect(image[:, y0:y1, x0:x1], POINTED_SCORE)
        corner = box.new_tensor([x0, y0])
        boxes, points = boxes + corner.repeat(2), points + corner
        near = torch.nonzero(blaze.overlap(boxes, box[None])[:, 0] > POINTED_OVERLAP).squeeze(1)
        across = side * box.new_tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])  # eye lines of four turns
        starts, eyes = box.expand(4, 4), torch.stack([middle - across / 4, middle + across / 4], 1)
        score, known = scores.new_zeros(1), None
        if len(near):
            best = near[scores[near].argmax()][None]
            score, known = scores[best], points[best][:, POINTS_KNOWN]
            starts, eyes = torch.cat([boxes[best], starts]), torch.cat([points[best][:, :2], eyes])
        meshes, presences = self.place(image, starts, eyes)
        presence, chosen = presences.max(0, keepdim=True)
        if presence >= MIN_PRESENCE:
            mesh = self.steady(image, meshes[chosen])
        elif known is not None:
            mesh = mean_mesh_on(known.float().cpu().numpy(), POINTS_KNOWN)
        else:
            mesh = mean_mesh_in(box[None].float().cpu().numpy())
        return self._faces(mesh, score, presence, given=np.ones(1, bool))

    def _taken(self, image: Tensor) -> Tensor:
        """The photo, checked, where and as the networks take it."""
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise InputError(f"the photo must be (3,H,W) float in [0,1], got {tuple(image.shape)} {image.dtype}")
        return image.to(self.mesh.device, self.mesh.dtype)

    def _faces(self, mesh: Tensor | np.ndarray, scores: Tensor, presence: Tensor, **more: np.ndarray) -> Faces:
        """`Faces` of meshes (N,468,3), whose boxes they span."""
        if isinstance(mesh, Tensor):
            mesh = mesh.detach().float().cpu().numpy()
        boxes = np.concatenate([mesh[..., :2].min(1), mesh[..., :2].max(1)], 1)
        scores, presence = (x.detach().float().cpu().numpy() for x in (scores, presence))
        return Faces(boxes, scores, mesh, presence, pose_from_mesh(mesh), **more)

    def look(self, image: Tensor, min_score: float, min_presence: float) -> Faces:
        """Detects, places the mesh and drops what the mesh does not confirm.

        Args:
            image: (3,H,W) RGB in [0,1].
            min_score: least detector score in [0,1].
            min_presence: least presence score of the mesh in [0,1]; a detector that is very sure needs less.

        Returns:
            As `__call__`.
        """
        boxes, scores, points = self.detect(image, min_score)
        if not len(boxes):
            return Faces.empty()
        mesh, presence = self.place(image, boxes, points)
        # Each face once, on the boxes that the meshes span: two detections can lead to one mesh.
        boxes = torch.cat([mesh[..., :2].amin(1), mesh[..., :2].amax(1)], 1)
        confirmed = (presence >= min_presence) | ((scores >= SURE_SCORE) & (presence >= SURE_PRESENCE))
        sure = torch.nonzero(confirmed).squeeze(1)
        kept = sure[blaze.nms(boxes[sure], scores[sure])]
        faces = self._faces(self.steady(image, mesh[kept]), scores[kept], presence[kept])
        return faces[by_size(faces)]

    def look_again(self, image: Tensor, min_score: float) -> Faces:
        """Looks at the photo with its halftone dots, tint and tight framing taken away.

        Screens of newsprint, tinted paper and faces that fill the picture hide from the networks. The mesh has to be
        surer here.

        Args:
            image: (3,H,W) RGB in [0,1].
            min_score: least detector score in [0,1].

        Returns:
            As `__call__`; scores are those of the picture so prepared.
        """
        height, width = image.shape[-2:]
        grey = image.mean(0).expand(1, 3, -1, -1)
        for detail in DETAILS:
            scale = max(height, width) / detail
            size = [max(1, round(n / scale)) for n in (height, width)]
            smooth = F.interpolate(grey, size, mode="bilinear", antialias=True, align_corners=False)
            border = detail // 2
            framed = F.pad(smooth, [border] * 4, value=0.5)[0]
            faces = self.look(framed, min_score, AGAIN_PRESENCE)
            if len(faces):
                # Points and boxes were measured in the framed picture.
                mesh = (faces.mesh - [border, border, 0]) * scale
                boxes = (faces.boxes - border) * scale
                return replace(faces, boxes=boxes.astype(np.float32), mesh=mesh.astype(np.float32))
        return Faces.empty()

    def detect(self, image: Tensor, min_score: float = MIN_SCORE) -> tuple[Tensor, Tensor, Tensor]:
        """Runs the detectors on all views of the photo.

        Args:
            image: (3,H,W) RGB in [0,1].
            min_score: least score.

        Returns:
            Boxes (N,4) xyxy and key points (N,6,2) in pixels of the photo, and scores (N,), as (boxes, scores,
            points), best first, suppressed.
        """
        found = []
        for side, corners in views(*image.shape[-2:]):
            # On tiles the second one is enough: it sees smaller faces, and they would be most of the time.
            for net in self.detectors if len(corners) == 1 else self.detectors[1:]:
                found.append(self._look(net, image, side, corners, min_score))
        boxes, scores, points = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = blaze.nms(boxes, scores)
        return boxes[kept], scores[kept], points[kept]

    def _look(
        self, net: FaceDetector, image: Tensor, side: float, corners: Tensor, min_score: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One detector on the squares of one size; as `detect`, not yet suppressed."""
        height, width = image.shape[-2:]
        corners = corners.to(image)
        squares = cut(image, side, corners, net.size) * 2 - 1
        parts = [net(part) for part in squares.split(BATCH)]
        raw, logits = (torch.cat(p) for p in zip(*parts, strict=True))
        boxes, scores, points = blaze.decode(raw, logits, net.config.variant)
        view, anchor = torch.nonzero(scores >= min_score, as_tuple=True)
        boxes, scores, points = boxes[view, anchor], scores[view, anchor], points[view, anchor]
        # A face cut by a tile's edge is whole in the next tile; at the photo's edge there is no next tile.
        edge = 0.01
        least, most = corners[view] > 0, corners[view] + side < torch.tensor([width, height]).to(image)
        cut_off = (least & (boxes[:, :2] < edge)) | (most & (boxes[:, 2:] > 1 - edge))
        whole = ~cut_off.any(1)
        shift = corners[view][whole]
        return boxes[whole] * side + shift.repeat(1, 2), scores[whole], points[whole] * side + shift[:, None]

    def place(self, image: Tensor, boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Places the mesh on each face, twice.

        Args:
            image: (3,H,W) RGB in [0,1].
            boxes: (N,4) xyxy, pixels of the photo.
            points: (N,6,2) detector key points, pixels of the photo.

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
        for part in crop_to_image.split(8 * BATCH):
            mesh, logit = self.mesh(warp(image, part, MESH_SIZE))
            meshes.append(mesh)
            logits.append(logit)
        mesh = torch.cat(meshes)
        xy = mesh[..., :2] @ crop_to_image[..., :2].mT + crop_to_image[:, None, :, 2]
        z = mesh[..., 2:] * crop_to_image[:, None, :, 0].norm(dim=-1, keepdim=True)
        return torch.cat([xy, z], -1), torch.cat(logits).sigmoid()


def by_size(faces: Faces) -> np.ndarray:
    """Order of faces (N,), largest box first."""
    return np.argsort(-(faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(1), kind="stable")


def with_given(found: Faces, given: Faces) -> Faces:
    """The faces found and those that the caller pointed at, each once, largest first."""
    if not len(given):
        return found
    same = blaze.same_face(torch.from_numpy(found.boxes), torch.from_numpy(given.boxes)).numpy()  # (F, G)
    found = replace(found, given=found.given | same.any(1))
    together = Faces.cat([found, given[~same.any(0)]])
    return together[by_size(together)]


def views(height: int, width: int) -> list[tuple[float, Tensor]]:
    """Squares that the detectors look at.

    Args:
        height: of the photo, pixels.
        width: of the photo, pixels.

    Returns:
        Per level the side of its squares and their top left corners (K,2) as (x, y), in pixels of the photo. The first
        level is the whole photo in the middle of one square; then tiles, each level about half as large.
    """
    whole = float(max(height, width))
    corner = torch.tensor([[(width - whole) / 2, (height - whole) / 2]])
    levels = [(whole, corner)]
    times = whole / (FACES_PER_TILE * max(SMALLEST_FACE, SMALLEST_FACE_SHARE * whole))
    count = math.floor(math.log2(max(times, 1)) + 0.5)
    for k in range(1, count + 1):
        side = whole / times ** (k / count)
        x, y = (starts(length, side) for length in (width, height))
        levels.append((side, torch.cartesian_prod(x, y)))
    return levels


def starts(length: int, side: float) -> Tensor:
    """Where tiles begin along one edge, evenly, so that neighbours share at least `TILE_OVERLAP` of a tile."""
    if length <= side:
        return torch.tensor([(length - side) / 2])
    count = math.ceil((length - side) / (side * (1 - TILE_OVERLAP))) + 1
    return torch.linspace(0, length - side, count)


def cut(image: Tensor, side: float, corners: Tensor, size: int) -> Tensor:
    """Squares of the photo, shrunk with antialiasing, black where they leave it.

    Args:
        image: (3,H,W).
        side: of the squares, pixels of the photo.
        corners: (K,2) top left corners as (x, y), pixels of the photo.
        size: pixels of the result.

    Returns:
        (K,3,size,size), channels last.
    """
    scale = size / side
    height, width = (max(1, round(n * scale)) for n in image.shape[-2:])
    small = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True, align_corners=False)
    small = F.pad(small, (size, size, size, size))[0]
    places = ((corners * scale).round().long() + size).tolist()
    squares = torch.stack([small[:, y : y + size, x : x + size] for x, y in places])
    return squares.contiguous(memory_format=torch.channels_last)


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
