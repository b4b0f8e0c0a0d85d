"""Training of the face finder: scenes, what is asked of them, and a loop that goes on as if it had never stopped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from studio.errors import InputError
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.pose import pose_from_mesh
from studio.faces.templates import five_points
from studio.networks.finder import FinderNet, decode, rotation
from studio.training import finder, run, scenes
from studio.training.finder import FinderTrainer, losses, targets
from studio.training.presets import FINDER
from studio.training.scenes import SIZE, FaceBank, Faceless, Labels, Scenes
from tests.faces.synthetic import smooth_image
from tests.tiny import seeded


def bank():
    """Two pictures with points at eyes, nose and mouth, and a mesh that lies on them."""
    pictures = (smooth_image(SIZE, SIZE) * 255).byte().permute(1, 2, 0).repeat(2, 1, 1, 1).contiguous()
    for x, y in five_points(MEAN_MESH[None])[0] * SIZE:
        pictures[:, int(y) - 4 : int(y) + 4, int(x) - 4 : int(x) + 4] = 0
    damaged, left = scenes.damage_faces(pictures, 2, 0)
    return FaceBank([pictures], [damaged], [left], MEAN_MESH[None].repeat(2, 0).astype(np.float16), np.ones(2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures without faces."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).resize((300, 200)).save(folder / f"wall{i}.jpg")
        thing = Image.new("RGBA", (80, 60), (200, 40, 10, 255))
        thing.putalpha(Image.radial_gradient("L").resize((80, 60)))
        thing.save(folder / f"thing{i}.png")
    return folder


@pytest.fixture(scope="module")
def source(folder):
    return Scenes(bank(), Faceless(sorted(folder.iterdir())))


def test_the_same_number_gives_the_same_scene(source):
    (first, labels), (again, same), (other, _) = (source(seed)[0] for seed in ((1, 2), (1, 2), (1, 3)))
    assert first.shape == (3, SIZE, SIZE) and first.dtype == torch.uint8
    assert torch.equal(first, again) and np.array_equal(labels.boxes, same.boxes)
    assert not torch.equal(first, other)


def test_labels_lie_in_their_boxes(source):
    found = [labels for seed in range(40) for _, labels in source((seed,), None, 2)]
    faces = sum(len(labels.boxes) for labels in found)
    asked = sum(labels.asked.sum() for labels in found)
    assert faces > asked > 0.3 * faces
    for labels in found:
        low, high = labels.boxes[:, None, :2] - 1, labels.boxes[:, None, 2:] + 1
        assert ((labels.points >= low) & (labels.points <= high)).all()
        assert ((labels.shown >= 0) & (labels.shown <= 1)).all()
        # The eyes' line is turned as the pose says, but for a stretch.
        eyes = labels.points[:, 1] - labels.points[:, 0]
        roll = np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))
        assert (abs((roll - labels.pose[:, 2] + 180) % 360 - 180) < 8).all()
        middles = (labels.boxes[labels.asked, :2] + labels.boxes[labels.asked, 2:]) / 2
        assert ((middles >= 0) & (middles < SIZE)).all()


def test_a_second_picture_of_a_scene_is_its_mirror_image(source):
    turned = 0
    for seed in range(30):
        (_, first), (_, second) = source((seed, 7), None, 2)
        if not len(first.boxes) or abs(first.pose[0, 2] + second.pose[0, 2]) > 1e-3:
            turned += 1  # one of the two was turned by quarters
            continue
        np.testing.assert_allclose(second.boxes[:, [0, 2]], SIZE - first.boxes[:, [2, 0]], atol=1e-3)
        np.testing.assert_allclose(second.points[:, 0, 0], SIZE - first.points[:, 1, 0], atol=1e-3)
        np.testing.assert_allclose(second.pose[:, 0], -first.pose[:, 0], atol=1e-3)
    assert turned < 15


def test_a_quarter_turn_turns_pixels_and_labels_alike():
    pixels = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    pixels[:, 20:30, 100:140] = 255
    labels = Labels(
        np.array([[100, 20, 140, 30]], np.float32), np.full((1, 5, 2), [100, 20], np.float32), np.array([[5, 6, 170]]),
        np.ones(1), np.ones(1, bool), np.zeros(1, int),
    )  # fmt: skip
    turned, moved = scenes.quarter_turn(pixels, labels)
    x0, y0, x1, y1 = moved.boxes[0].astype(int)
    assert (turned[:, y0:y1, x0:x1] == 255).all() and (turned == 255).sum() == (pixels == 255).sum()
    assert moved.points[0, 0].tolist() == [SIZE - 20, 100]
    assert moved.pose[0].tolist() == [5, 6, -100]


def test_a_child_keeps_its_points(folder):
    """Pixels and points move alike."""
    picture, mesh = Image.fromarray(bank().images[0][0].numpy()), MEAN_MESH
    moved, points = scenes.childlike(picture, mesh, np.random.default_rng(5))
    where = five_points(points[None])[0] * SIZE
    dark = np.asarray(moved).sum(2)
    for x, y in where:
        assert dark[int(y), int(x)] < 150
    assert abs(points - mesh).max() > 0.005


def test_damaged_faces_are_half_as_large_and_say_what_is_left():
    damaged, left = scenes.damage_faces(bank().images[0], 3, 1)
    assert damaged.shape == (2, 3, SIZE // 2, SIZE // 2, 3) and left.shape == (2, 3)
    assert (left > 512 / 31 / scenes.CROP_SIDE).all() and (left <= 512 / scenes.CROP_SIDE).all()
    again, _ = scenes.damage_faces(bank().images[0], 3, 1)
    assert torch.equal(damaged, again) and not torch.equal(damaged[0, 0], damaged[0, 1])


def test_the_mirror_of_the_mean_face_is_itself():
    assert (scenes.MIRROR[scenes.MIRROR] == np.arange(468)).all()
    mirrored = MEAN_MESH[scenes.MIRROR] * [-1, 1, 1] + [1, 0, 0]
    np.testing.assert_allclose(mirrored, MEAN_MESH, atol=2e-3)
    assert pose_from_mesh(mirrored[None])[0, 0] == pytest.approx(0, abs=0.5)


def test_faceless_pictures_are_of_both_kinds(folder, tmp_path):
    with pytest.raises(InputError, match="got 3 and 0"):
        Faceless(sorted(folder.glob("*.jpg")))


# ---- what is asked


def face(x, y, side, asked=True):
    """Labels of one face."""
    box = np.array([[x - side / 2, y - side / 2, x + side / 2, y + side / 2]], np.float32)
    points = np.array([[[x - side / 5, y], [x + side / 5, y], [x, y + 5], [x - 5, y + 9], [x + 5, y + 9]]], np.float32)
    return Labels(
        box, points, np.array([[10, -5, 20]], np.float32), np.ones(1, np.float32), np.array([asked]), np.zeros(1, int)
    )


def both(*labels):
    return Labels(*(np.concatenate([getattr(one, name) for one in labels]) for name in vars(labels[0])))


def test_the_middle_is_asked_for_and_what_is_unclear_is_left_alone():
    wanted = targets([face(100, 52, 64), both(face(30, 30, 20), face(200, 200, 40, asked=False))])
    assert wanted.middles.tolist() == [[0, 6, 12], [1, 3, 3]]
    assert (wanted.bump == 1).sum() == 2
    assert wanted.counted[1, 25, 25] == 0 and wanted.counted[1, 3, 3] == 1 and wanted.counted[0].min() == 1
    assert len(wanted.boxes) == 2 and set(wanted.face.tolist()) == {0, 1}
    assert (wanted.cells[wanted.face == 0, 0] == 0).all() and (wanted.cells[wanted.face == 1, 0] == 1).all()


def test_the_right_answer_costs_least():
    labels = [face(100, 52, 64)]
    wanted = targets(labels)
    raw = torch.zeros(1, 35, 32, 32)
    raw[:, 0] = -9.0
    n, row, column = wanted.cells.T
    places = torch.stack([column * 8.0 + 4, row * 8.0 + 4], 1)
    box, points = torch.from_numpy(labels[0].boxes[0]), torch.from_numpy(labels[0].points[0])
    middle = (box[:2] + box[2:]) / 2
    said = torch.zeros(len(n), 35)
    said[:, 0] = torch.where((torch.stack([row, column], 1) == wanted.middles[0, 1:]).all(1), 9.0, -9.0)
    said[:, 1:3] = (middle - places) / 16
    said[:, 3:5] = torch.tensor(64 / 16).log()
    said[:, 5:15] = ((points - middle) / 64 @ rotation(torch.tensor(20.0))).flatten()
    said[:, 15:17] = torch.tensor([10, -5]) / 60
    said[:, 17:25] = -20.0
    said[:, 17:19] = torch.tensor([25 / 45, 20 / 45]).log()  # between the first turn and the second
    said[:, 25:27] = torch.tensor([20 / 45, -25 / 45])
    said[:, 33], said[:, 34] = -6, 9
    raw[n, :, row, column] = said
    right, _ = losses(raw, wanted)
    assert all(float(right[name]) < 1e-3 for name in ("score", "box", "points", "pose", "shown"))
    least = -sum(share * np.log(share) for share in (25 / 45, 20 / 45))
    assert float(right["turn"]) == pytest.approx(least, abs=1e-3)
    torch.testing.assert_close(decode(said, places).points[0], points, atol=1e-3, rtol=0)
    for part, name in (
        (0, "score"),
        (1, "box"),
        (4, "box"),
        (6, "points"),
        (15, "pose"),
        (18, "turn"),
        (26, "turn"),
        (34, "shown"),
    ):
        wrong = raw.clone()
        wrong[:, part] -= 12
        assert losses(wrong, wanted)[0][name] > right[name] + 0.01, name
    missed = raw.clone()
    missed[:, 0] = -9
    assert losses(missed, wanted)[1] > losses(raw, wanted)[1] + 1


def test_a_batch_without_faces():
    none = Labels(
        *(np.zeros((0, *shape), np.float32) for shape in ((4,), (5, 2), (3,), ())), np.zeros(0, bool), np.zeros(0, int)
    )
    wanted = targets([none, none])
    raw = torch.zeros(2, 35, 32, 32, requires_grad=True)
    found, each = losses(raw, wanted)
    sum(found.values()).backward()
    assert len(each) == 0 and raw.grad[:, 0].abs().sum() > 0


# ---- the loop


def trainer(folder, source, count=96):
    with seeded():
        net = FinderNet(widths=(8, 8, 8), blocks=(1, 1), merged=8, folded=False)
    return FinderTrainer(replace(FINDER, scenes=count, batch=2), source, folder, net, report=lambda line: None)


def test_it_learns_and_goes_on_to_the_bit(tmp_path, source, monkeypatch):
    monkeypatch.setattr(finder, "ROUND", 4)  # so that sizes are chosen anew
    monkeypatch.setattr(FinderTrainer, "sheet", lambda self, net: None)
    whole = trainer(tmp_path / "whole", source, count=24)
    whole.run()
    first = trainer(tmp_path / "parts", source, count=24)
    for _ in range(7):
        first.update(*first.load(first.step))
    first.save()
    second = trainer(tmp_path / "parts", source, count=24)
    second.resume()
    assert second.step == 7
    second.run()
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[name]), name
    assert torch.equal(whole.shares_of(whole.step), second.shares_of(second.step))
    saved = FinderNet.from_pretrained(tmp_path / "parts" / "finder")
    assert saved.config.folded


def test_sizes_that_are_bad_are_drawn_more_often(tmp_path, source, monkeypatch):
    monkeypatch.setattr(finder, "ROUND", 1)
    one = trainer(tmp_path, source)
    one.running[3] = 50.0
    one.update(*one.load(0))
    one.update(*one.load(1))
    shares = one.shares_of(one.step)
    assert shares.argmax() == 3 and shares.sum() == pytest.approx(1) and shares.min() > 0.02


def test_the_sheet_is_drawn(tmp_path, source):
    one = trainer(tmp_path, source)
    one.sheet(one.averaged(), 4)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * SIZE, SIZE)


def test_a_bank_is_read_with_its_shares(tmp_path):
    for name, count in (("clean-00000", 1), ("old-00000", 3)):
        images = torch.zeros(count, 8, 8, 3, dtype=torch.uint8)
        damaged, left = scenes.damage_faces(images, 2, 0)
        tensors = {"images": images, "damaged": damaged, "left": left, "mesh": torch.zeros(count, 468, 3).half()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    known = finder.load_bank(tmp_path, {"clean": 0.25, "old": 0.75})
    assert len(known) == 4
    np.testing.assert_allclose(known.weights, [0.25] * 4)


def test_command_trains_and_exports(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(run, "FINDER", replace(FINDER, batch=2))
    monkeypatch.setattr(
        run, "FinderNet", lambda folded: FinderNet(widths=(8, 8, 8), blocks=(1, 1), merged=8, folded=folded)
    )
    monkeypatch.setattr(FinderTrainer, "sheet", lambda self, net: None)
    faces = bank()
    for kind in ("generated", "turned", "clean", "studio", "old"):
        tensors = {name: getattr(faces, name)[0] for name in ("images", "damaged", "left")}
        tensors["mesh"] = torch.from_numpy(faces.mesh)
        (tmp_path / "bank").mkdir(exist_ok=True)
        save_file(tensors, tmp_path / "bank" / f"{kind}-00000.safetensors")
    lines = []
    run.train_finder(tmp_path / "run", tmp_path / "bank", folder, scenes=4, report=lines.append)
    assert lines[0].startswith("10 faces, ")
    with pytest.raises(InputError, match="--resume"):
        run.train_finder(tmp_path / "run", tmp_path / "bank", folder, scenes=4)
    monkeypatch.undo()
    run.export(tmp_path / "run", tmp_path / "out")
    exported = FinderNet.from_pretrained(tmp_path / "out")
    assert exported.config.folded
