"""The benchmark of finding: a finder that knows, and one that sees nothing."""

import numpy as np
import pytest
import torch
from PIL import Image

from studio import images
from studio.benchmarks import find as bench
from studio.detect import Detected, Together
from studio.errors import InputError
from studio.faces.faces import Faces
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.templates import five_points
from studio.find import FaceFinder, spanned
from tests import tiny

GREEN = torch.tensor([0.0, 1.0, 0.0])


class GreenFinder(FaceFinder):
    """Takes what is green for a face, and puts the mean mesh on it."""

    blind = False

    def look(self, image):
        green = (image[1] > 0.6) & (image[0] < 0.4) & (image[2] < 0.4)
        if self.blind or not green.any():
            return None
        y, x = torch.nonzero(green, as_tuple=True)
        return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)

    def __call__(self, image, min_score=0.5):
        box = self.look(image)
        if box is None:
            return Faces.empty()
        low, high = MEAN_MESH[:, :2].min(0), MEAN_MESH[:, :2].max(0)
        scale = (box[2:] - box[:2]) / (high - low)
        flat = box[:2] + (MEAN_MESH[:, :2] - low) * scale
        mesh = np.concatenate([flat, MEAN_MESH[:, 2:] * scale.mean()], 1)
        return spanned(mesh[None].astype(np.float32), torch.ones(1), torch.ones(1))

    def place(self, image, boxes, points):
        return torch.from_numpy(self(image).mesh), torch.ones(len(boxes))

    def steady(self, image, mesh):
        return mesh


class Detector:
    def __init__(self, finder):
        self.finder = finder

    def __call__(self, image, min_score):
        faces = self.finder(image)
        n = len(faces)
        boxes, points = torch.from_numpy(faces.boxes), torch.from_numpy(five_points(faces.mesh))
        return Detected(boxes, torch.ones(n), points, torch.zeros(n, 3), torch.ones(n))


@pytest.fixture
def finder(monkeypatch):
    found = GreenFinder(Together(*tiny.detectors()), tiny.face_mesh())
    found.detector = Detector(found)
    for name in ("from_pretrained", "with_blaze"):
        monkeypatch.setattr(FaceFinder, name, classmethod(lambda cls, *given: found))
    monkeypatch.setattr(bench, "provenance", lambda names, folders: {"weights": sorted(names)})
    monkeypatch.setattr(bench, "FACELESS", 12)
    return found


@pytest.fixture
def photos(tmp_path):
    """Green ovals on grey, where aligned faces would be."""
    low, high = (MEAN_MESH[:, :2].min(0) * 128, MEAN_MESH[:, :2].max(0) * 128)
    picture = Image.new("RGB", (128, 128), "gray")
    picture.paste((0, 255, 0), tuple(np.round([*low, *high]).astype(int).tolist()))
    for folder in ("portraits", "aligned_clean", "old", "pictures", "upscaled"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            name = {"upscaled": f"face{i}_original.jpg", "portraits": f"face{i}_a.png"}.get(folder, f"face{i}.png")
            wall = Image.new("RGB", (90, 90), (90, 60 + i, 90))
            (wall if folder == "pictures" else picture).save(tmp_path / folder / name, quality=100)
        if folder == "upscaled":
            picture.save(tmp_path / folder / "face1_ringing.png")
    return tmp_path


def run(photos, detector="finder", recipes=("none",), **given):
    about = {"cases": photos, "pictures": photos / "pictures", "net": None, "sheet": None} | given
    return bench.run(
        photos, about["cases"], about["pictures"], detector, recipes, 0, 2, 1, about["net"], about["sheet"], print
    )


def test_pictures_without_faces_are_of_three_kinds_and_always_the_same(finder, photos):
    first, again = (bench.faceless(photos, photos / "pictures", 3) for _ in range(2))
    drawn = bench.FACELESS // 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [picture.shape for picture in first[:drawn]] == [(3, 480, 480)] * drawn
    assert len(first) <= 3 * drawn
    assert len(bench.faceless(photos, None, 3)) >= drawn


def test_a_finder_that_knows_finds_all(finder, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "faceless", lambda photos, pictures, seed: [torch.full((3, 90, 90), 0.4)] * 6)
    report = run(photos, sheet=tmp_path / "sheet.png", recipes=("none", "codeformer_large"))
    for kind in ("aligned", "pasted"):
        for found in report[kind].values():
            assert found["none"]["recall"] == 1 and found["none"]["false"] == 0, kind
            assert found["none"]["points"] < 0.05 and found["none"]["yaw"] < 2
    # It does not know that faces can be turned: the box is right, and nothing else.
    turned = report["turned"]["portraits"]["none"]
    assert turned["recall"] == 1 and turned["roll"] > 60 and turned["points"] > 0.5
    assert report["upscaled"]["faces"] == 1 and report["upscaled"]["recall"] == 1
    assert report["old"] == {"photos": 2, "with_a_face": 2, "without": [], "more_than_one": {}, "groups": {}}
    assert report["faceless"]["faces"] == 0
    assert report["seconds"]["finder 640 x 480"] > 0
    assert images.load(tmp_path / "sheet.png").width > 192
    assert report["provenance"] == {"weights": sorted(bench.WEIGHTS["finder"])}


def test_a_blind_one_finds_none(finder, photos, monkeypatch):
    known = {name: bench.portraits(photos / "portraits", 2) for name in ("crops",)}["crops"]
    monkeypatch.setattr(bench, "portraits", lambda folder, limit: known)
    monkeypatch.setattr(bench, "unseen", lambda photos, limit: known)
    monkeypatch.setattr(bench, "upscaled", lambda finder, folder: bench.Found())
    finder.blind = True
    report = run(photos)
    assert report["aligned"]["portraits"]["none"] == {"faces": 2, "recall": 0.0, "false": 0.0}
    assert report["eight"]["recall"] == 0 and report["eight"]["complete"] == 0
    assert report["old"]["with_a_face"] == 0 and len(report["old"]["without"]) == 2


def test_unknown_detectors(photos):
    with pytest.raises(InputError, match="finder, blaze"):
        run(photos, detector="dlib")


def test_overlap():
    assert bench.overlap(np.array([0, 0, 10, 10]), np.array([0, 0, 10, 10])) == 1
    assert bench.overlap(np.array([0, 0, 10, 10]), np.array([5, 0, 15, 10])) == pytest.approx(1 / 3)
    assert bench.overlap(np.array([0, 0, 10, 10]), np.array([20, 0, 30, 10])) == 0
