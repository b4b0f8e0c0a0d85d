"""Editing a photograph itself: where it changes, where it stays, and what is refused."""

import pytest
import torch

from studio import images
from studio.errors import InputError, NoFaceError
from studio.latents.editor import SIZE
from studio.latents.in_photo import FaceInPhoto, rows
from studio.latents.photo_editor import CROP, PhotoEditor
from studio.tone import luma
from tests import tiny

CHANGED = {"smile": 4.0, "mouth": 4.0}


@pytest.fixture(scope="module")
def editor():
    return tiny.photo_editor()


@pytest.fixture(scope="module")
def photo():
    return images.load(tiny.image(72, 80, seed=7))


@pytest.fixture(scope="module")
def sitter(editor, photo):
    return editor.find(photo, steps=1)


def test_the_same_latents_give_the_photograph_back(sitter):
    face, kept = sitter.inside.moved(sitter.inside.w)
    assert torch.allclose(face, sitter.crop, atol=1e-5)
    assert torch.equal(kept, torch.ones_like(kept))


def test_only_the_face_of_the_photograph_changes(editor, photo, sitter):
    edited, face, report = editor.edit(sitter, CHANGED)
    moved = (edited.pixels - photo.pixels).abs().amax(0)
    assert moved.max() > 0.002
    assert (moved[:4, :4] == 0).all() and (moved[-4:, -4:] == 0).all(), "the corners are no face"
    assert face.shape == (3, CROP, CROP)
    assert report.asked == CHANGED
    assert report.identity_distance > 0
    assert report.same_person == (report.identity_distance < 0.6)
    assert (report.face, report.faces_found) == (0, 1)


def test_a_smile_is_let_into_the_lower_half_alone(sitter):
    w = sitter.inside.w + 0.5
    near = {name: sitter.inside.moved(w, [name])[1] for name in ("smile", "eyes", "age")}
    upper, lower = (slice(0, CROP // 3), slice(2 * CROP // 3, 7 * CROP // 8))
    assert near["smile"][..., upper, :].min() == 1 > near["smile"][..., lower, :].min()
    assert near["eyes"][..., 3 * CROP // 4 :, :].min() == 1 > near["eyes"].min()
    assert near["age"][..., upper, :].min() < 1 and near["age"][..., lower, :].min() < 1


def test_several_changes_take_the_rows_of_all():
    smile, eyes, both = rows(["smile"], 32), rows(["eyes"], 32), rows(["smile", "eyes"], 32)
    assert torch.equal(both, torch.maximum(smile, eyes))
    assert torch.equal(rows([], 32), torch.ones(1, 1, 32, 1))
    assert torch.equal(rows(["smile", "light"], 32), torch.ones(1, 1, 32, 1))
    assert smile[0, 0, 0, 0] == 0 < smile[0, 0, 24, 0] == 1


def test_a_grey_photograph_stays_grey(editor):
    grey = images.load(tiny.image(72, 80, seed=7).mean(0, keepdim=True).repeat(3, 1, 1))
    edited, face, _ = editor.edit(editor.find(grey, steps=1), CHANGED)
    assert (face - face[:1]).abs().max() < 1e-3
    assert (edited.pixels - edited.pixels[:1]).abs().max() < 1e-3
    assert (edited.pixels - grey.pixels).abs().max() > 0.001


def test_a_sepia_face_on_a_coloured_card_stays_sepia(editor, sitter):
    sepia = luma(sitter.crop) * torch.tensor([1.0, 0.85, 0.65]).view(3, 1, 1)
    mask = torch.ones(1, 1, CROP, CROP)
    parts = editor.editor.generator, editor.head, editor.restorer
    face, kept = FaceInPhoto(*parts, sepia, mask, sitter.inside.w, None).moved(sitter.inside.w + 0.5)
    assert kept.min() < 0.9 and (face - sepia).abs().max() > 0.02
    wanted = luma(face) * sepia / luma(sepia)
    changed, plain = (kept < 0.5).expand_as(face), (face - wanted).abs()
    assert plain[changed].mean() < 0.02


def test_a_likeness_that_is_known_is_not_searched_for(editor, photo, sitter):
    steps = []
    again = editor.find(photo, steps=5, on_step=steps.append, w=sitter.inside.w)
    assert steps == []
    assert torch.equal(editor.edit(again, CHANGED)[1], editor.edit(sitter, CHANGED)[1])
    editor.find(photo, steps=2, on_step=steps.append)
    assert steps == [1, 2]


def test_what_the_photo_has_beside_its_pixels_is_kept(editor):
    alpha = torch.linspace(0, 1, 80).expand(1, 72, 80).contiguous()
    photo = images.Photo(tiny.image(72, 80, seed=7), alpha=alpha, bits=16)
    edited, _, _ = editor.edit(editor.find(photo, steps=1), CHANGED)
    assert torch.equal(edited.alpha, alpha) and edited.bits == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "a change is needed"),
        ({"yaw": 10.0}, "yaw can't be changed in the photograph itself"),
        ({"smile": 9.0}, "smile must be from -4 to 4"),
        ({"age": 10.0}, "age must be from 30 to 80"),
        ({"hat": 1.0}, "hat"),
    ],
)
def test_changes_that_are_refused(editor, sitter, changes, message):
    with pytest.raises(InputError, match=message):
        editor.edit(sitter, changes)


def test_photos_that_are_refused(editor):
    both = images.load(tiny.image(72, 160, seed=7))
    with pytest.raises(InputError, match="shows 2: pass face 0"):
        editor.find(both, steps=1)
    assert editor.find(both, 1, steps=1).index == 1
    for face in (2, -1):
        with pytest.raises(InputError, match="face must be from 0 to 1"):
            editor.find(both, face, steps=1)
    with pytest.raises(NoFaceError, match="none was found"):
        editor.find(images.load(torch.zeros(3, 72, 80)), steps=1)
    with pytest.raises(InputError, match="steps must be a whole number of 1 or more"):
        editor.find(both, 0, steps=0)


def test_a_face_of_a_few_pixels_is_refused(editor, photo, monkeypatch):
    monkeypatch.setattr("studio.latents.photo_editor.SMALLEST_EYE_DISTANCE", 1000.0)
    with pytest.raises(InputError, match="1000 px between its eyes to be edited"):
        editor.find(photo, steps=1)


# ---- the real weights


@pytest.fixture(scope="module")
def real():
    return PhotoEditor.from_pretrained()


def test_real_glasses_are_taken_off_a_generated_face(real):
    pixels = real.editor.draw(real.editor.sample(12))[0]
    photo = images.load(images.resize(pixels[None], CROP, CROP)[0])
    sitter = real.find(photo, steps=40)
    edited, _, report = real.edit(sitter, {"glasses": -1.5})
    assert report.after["glasses"] < report.before["glasses"] - 0.7
    assert report.identity_distance < 0.6
    read = images.resize(sitter.crop - sitter.inside.lacking, SIZE, SIZE).clamp(0, 1)
    assert (real.editor.measured(read)[1] - sitter.person).norm() < 0.25, "the restorer reads the person"
    changed = (edited.pixels - photo.pixels).abs().amax(0)
    assert changed[:40].max() < 0.02 and changed.max() > 0.2
