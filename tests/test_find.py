"""Finding faces, on the real weights and on real photographs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from studio import find
from studio.detect import Detected, Together
from studio.errors import InputError
from studio.faces import align
from studio.faces.faces import Faces
from studio.faces.given import mean_mesh_in
from studio.find import FaceFinder
from studio.images import load
from studio.networks.mesh import FaceMesh
from tests import tiny
from tests.faces.synthetic import faces_of, head


@pytest.fixture(scope="module")
def finder():
    return FaceFinder.from_pretrained()


@pytest.fixture(scope="module")
def portraits(photos):
    return [load(file).pixels for file in sorted((photos / "portraits").iterdir())[::18]]


def test_square_maps_the_middle_and_turns_with_the_eyes():
    affine = find.square(torch.tensor([[50.0, 60.0]]), torch.tensor([192.0]), torch.tensor([math.pi / 2]))
    middle = affine[0, :, :2] @ torch.tensor([96.0, 96.0]) + affine[0, :, 2]
    torch.testing.assert_close(middle, torch.tensor([50.0, 60.0]))
    # The crop's x axis is the eye line, which here points down the photo.
    torch.testing.assert_close(affine[0, :, 0], torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)


def test_refuses():
    finder = FaceFinder(Together(*tiny.detectors()), FaceMesh())
    with pytest.raises(InputError, match=r"\(3,H,W\)"):
        finder(torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="min_score"):
        finder(torch.zeros(3, 8, 8), min_score=2)


def test_reading_order():
    """A large one first; of those of about one size, rows from above, and from the left in each."""

    def box(x, y, side):
        return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]

    boxes = np.array([box(300, 105, 42), box(50, 200, 40), box(200, 100, 40), box(100, 94, 44), box(60, 300, 90)])
    assert find.reading_order(boxes) == [4, 3, 2, 0, 1]
    assert find.reading_order(np.zeros((0, 4))) == []
    assert find.reading_order(np.array([box(0, 0, 10), box(0, 0, 20)])) == [1, 0]


def test_looking_leaves_the_networks_as_they_are(monkeypatch):
    """Threads share them: weights that were laid out anew at a call were read half done by others."""
    monkeypatch.setattr(find, "DETAILS", (100,))
    nets, mesh = tiny.detectors(), tiny.face_mesh()
    before = [(p.data_ptr(), p.stride()) for part in (*nets, mesh) for p in part.parameters()]
    FaceFinder(Together(*nets), mesh)(torch.rand(3, 80, 80))
    assert [(p.data_ptr(), p.stride()) for part in (*nets, mesh) for p in part.parameters()] == before


class Saw:
    """A detector that saw faces of 40 px in a row, with these scores."""

    def __init__(self, *scores):
        self.scores = scores

    def __call__(self, image, min_score):
        scores = self.scores
        places = [k for k, score in enumerate(scores) if score >= min_score]
        boxes = torch.tensor([[100.0 * k, 20, 100 * k + 40, 60] for k in places]).view(-1, 4)
        points = boxes[:, None, :2] + torch.tensor([[10.0, 12], [30, 12], [20, 24], [12, 32], [28, 32]])
        kept = torch.tensor([scores[k] for k in places])
        return Detected(boxes, kept, points, torch.zeros(len(places), 3), torch.ones(len(places)))


def looking(detector, presences, monkeypatch):
    """A finder whose mesh lies in the boxes, and sees as much of each face as is said."""
    finder = FaceFinder(detector, tiny.face_mesh())

    def place(image, boxes, points):
        mesh = torch.from_numpy(mean_mesh_in(boxes.numpy())).float()
        return mesh, torch.tensor([presences[round(float(box[0]) / 100)] for box in boxes])

    monkeypatch.setattr(finder, "place", place)
    monkeypatch.setattr(finder, "steady", lambda image, mesh: mesh)
    return finder


@pytest.mark.parametrize(
    ("scores", "presences", "found", "doubtful"),
    [
        ((0.6, 0.9), (0.9, 0.9), 2, 0),  # the mesh sees both
        ((0.7, 0.6), (0.0, 0.9), 1, 1),  # beside a face that is seen, one that is not must be surer
        ((0.9, 0.6), (0.0, 0.9), 2, 0),
        ((0.7,), (0.0,), 1, 0),  # alone it need not be so sure
        ((0.6,), (0.0,), 0, 1),
        ((0.46,), (0.9,), 0, 1),
        ((0.3,), (0.9,), 0, 0),
    ],
)
def test_what_counts_as_a_face(scores, presences, found, doubtful, monkeypatch):
    faces = looking(Saw(*scores), presences, monkeypatch)(torch.rand(3, 80, 300))
    assert (len(faces), len(faces.doubtful)) == (found, doubtful)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_processor(dtype):
    net, *published = tiny.detectors()
    with torch.no_grad():
        net.head[-1].bias[0] = 3.0  # sure of faces
    finder = FaceFinder(Together(*(part.to(dtype) for part in (net, *published))), tiny.face_mesh().to(dtype))
    faces = finder(torch.rand(3, 80, 80))
    assert len(faces) and faces.mesh.dtype == np.float32
    assert len(finder.given(torch.rand(3, 80, 80), [[10, 10, 60, 60]])) == 1
    assert len(finder.aligned(torch.rand(3, 80, 80))) == 1


@pytest.mark.weights
@pytest.mark.parametrize("shape", [(3, 60, 90), (3, 1, 1)])
def test_nothing_in_an_empty_photo(finder, shape):
    assert len(finder(torch.full(shape, 0.5))) == 0


@pytest.mark.weights
@pytest.mark.photos
def test_group_of_29(finder, photos):
    image = load(photos / "old" / "group_solvay_1927.png").pixels
    faces = finder(image)
    assert len(faces) == 29
    assert (abs(faces.widths - 42) < 12).all()
    assert (faces.mesh_scores > 0.9).all()


@pytest.mark.weights
@pytest.mark.photos
def test_one_face_in_each_portrait(finder, portraits):
    for image in portraits:
        faces = finder(image)
        assert len(faces) == 1
        assert abs(faces.pose[0]).max() < 45


@pytest.mark.weights
@pytest.mark.photos
def test_old_photographs(finder, photos):
    files = [file for file in sorted((photos / "old").iterdir()) if "group" not in file.name][2::9]
    assert [len(finder(load(file).pixels)) for file in files] == [1] * len(files)


@pytest.mark.weights
@pytest.mark.photos
@pytest.mark.parametrize("corner", [(100, 200), (2800, 1700)])
def test_small_face_in_a_large_photo(finder, portraits, corner):
    face = finder(portraits[0])
    scale = 40 / float(face.widths[0])
    small = F.interpolate(portraits[0][None], scale_factor=scale, mode="bilinear", antialias=True)[0]
    canvas = torch.rand(1, 3, 25, 38, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    canvas = F.interpolate(canvas, (2000, 3000), mode="bilinear")[0]
    x, y = corner
    canvas[:, y : y + small.shape[1], x : x + small.shape[2]] = small
    found = finder(canvas)
    assert len(found) == 1
    expected = face.boxes[0] * scale + [x, y, x, y]
    assert abs(found.boxes[0] - expected).max() < 3


@pytest.mark.weights
@pytest.mark.photos
def test_mesh_follows_a_mirrored_and_a_turned_photo(finder, portraits):
    image = portraits[1]
    faces = finder(image)
    width = image.shape[-1]
    mirrored = finder(image.flip(-1))
    assert abs(width - mirrored.boxes[0, [2, 0]] - faces.boxes[0, [0, 2]]).max() < 0.06 * faces.widths[0]
    assert mirrored.pose[0, 0] == pytest.approx(-faces.pose[0, 0], abs=6)
    turned = torch.tensor([[0.9397, -0.342, 0.0], [0.342, 0.9397, 0.0]])  # by 20 degrees
    grid = F.affine_grid(turned[None], [1, 3, width, width], align_corners=False)
    top = image[None, :, : image.shape[-1]]
    rolled = finder(F.grid_sample(top, grid, padding_mode="border", align_corners=False)[0])
    straight = finder(top[0])
    assert abs(abs(rolled.pose[0, 2] - straight.pose[0, 2]) - 20) < 3
    assert rolled.mesh_scores[0] > 0.9


@pytest.mark.weights
@pytest.mark.photos
def test_min_score_is_obeyed(finder, photos):
    image = load(photos / "old" / "group_solvay_1927.png").pixels
    faces = finder(image, min_score=0.85)
    assert 0 < len(faces) < 29
    assert (faces.scores >= 0.85).all()


@pytest.mark.weights
@pytest.mark.photos
@torch.inference_mode()
def test_the_mean_over_eight_crops_hangs_less_on_where_it_was_started(finder, portraits):
    apart = {"place": [], "steady": []}
    for image in portraits:
        found = finder.detector(image, 0.5)
        boxes, points = found.boxes[:1], found.points[:1]
        aside = boxes + 0.06 * (boxes[:, 2:] - boxes[:, :2]).amax() * torch.tensor([1, -1, 1, -1])
        first, second = (finder.place(image, start, points)[0] for start in (boxes, aside))
        eye_distance = (first[0, 33] - first[0, 263]).norm()
        apart["place"].append(float((first - second).norm(dim=2).mean() / eye_distance))
        first, second = finder.steady(image, first), finder.steady(image, second)
        apart["steady"].append(float((first - second).norm(dim=2).mean() / eye_distance))
    assert sum(apart["steady"]) < 0.6 * sum(apart["place"])
    assert max(apart["steady"]) < 0.01


# ---- given faces


@pytest.mark.weights
@pytest.mark.photos
def test_a_given_box_leads_to_the_face_that_is_found_there(finder, portraits):
    image = portraits[1]
    found = finder(image)
    width = found.widths[0]
    box = found.boxes[0] + 0.15 * width * np.array([-1, 1, 0.5, 1])
    given = finder.given(image, [box])
    apart = np.linalg.norm(given.mesh - found.mesh, axis=2).mean() / found.eye_distances[0]
    assert apart < 0.02
    assert given.given.tolist() == [True] and given.mesh_scores[0] > 0.9


@pytest.mark.weights
@pytest.mark.photos
@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_given_face_may_lie_on_its_side_or_stand_on_its_head(finder, portraits, quarter):
    image = portraits[1]
    height, width = image.shape[1:]
    upright = finder(image)
    turned = torch.rot90(image, -quarter, (1, 2))  # clockwise
    x0, y0, x1, y1 = upright.boxes[0]
    boxes = {
        1: (height - y1, x0, height - y0, x1),
        2: (width - x1, height - y1, width - x0, height - y0),
        3: (y0, width - x1, y1, width - x0),
    }
    given = finder.given(turned, [boxes[quarter]])
    assert given.mesh_scores[0] > 0.9
    roll = (given.pose[0, 2] - upright.pose[0, 2] - 90 * quarter + 180) % 360 - 180
    assert abs(roll) < 3


@pytest.mark.weights
def test_a_given_box_without_a_face_gets_the_mean_face(finder):
    given = finder.given(torch.full((3, 200, 300), 0.4), [(100, 50, 180, 150), (-30, 10, 50, 110)])
    assert len(given) == 2 and (given.mesh_scores < find.MIN_PRESENCE).all() and (given.scores == 0).all()
    np.testing.assert_allclose((given.boxes[:, :2] + given.boxes[:, 2:]) / 2, [[140, 100], [10, 60]], atol=1e-3)
    assert abs(given.pose[:, [0, 2]]).max() < 1


@pytest.mark.weights
@pytest.mark.photos
def test_an_aligned_face_needs_no_detector(finder, photos):
    """However bad: the mesh sees nothing, and the crop is the picture all the same."""
    image = load(sorted((photos / "aligned_clean").iterdir())[0]).pixels
    face = finder.aligned(image)
    assert face.mesh_scores[0] > 0.9 and face.given[0]
    assert abs(align.scale_of(face.crops(256))[0] - 1) < 0.1
    mosaic = F.interpolate(F.interpolate(image[None], (5, 5), mode="area"), (256, 256))[0]
    blind = finder.aligned(mosaic)
    assert blind.mesh_scores[0] < find.MIN_PRESENCE
    np.testing.assert_array_equal(blind.crops(256)[0], [[1, 0, 0], [0, 1, 0]])
    apart = np.linalg.norm(blind.mesh[0, :, :2] - face.mesh[0, :, :2], axis=1).mean()
    assert apart < 0.3 * face.eye_distances[0]
    with pytest.raises(InputError, match="must be square"):
        finder.aligned(image[:, :200])


def test_given_faces_are_told_once():
    found = faces_of(head((50, 60), 80), head((200, 60), 40))
    given = replace(faces_of(head((52, 60), 80), head((300, 60), 60)), given=np.ones(2, bool))
    together = find.with_given(found, given)
    assert together.given.tolist() == [True, True, False]
    np.testing.assert_array_equal(together.mesh[0], found.mesh[0])
    assert find.with_given(found, Faces.empty()) is found
    assert find.with_given(Faces.empty(), given).given.tolist() == [True, True]
