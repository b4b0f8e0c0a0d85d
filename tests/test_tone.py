"""The tone of prints: found, kept, and told from the colours of a photograph."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from studio.metrics import mean_lab_difference
from studio.tone import apply_tone, luma, match_tone, tone_curve, with_tint
from tests import tiny

SEPIA = torch.tensor([1.0, 0.85, 0.65]).view(3, 1, 1)


def grey_photo():
    return luma(tiny.photo()[None])[0]


def test_grey_has_a_curve_of_zeros_and_stays_grey():
    grey = grey_photo().expand(3, -1, -1)
    tone = tone_curve(grey)
    assert torch.equal(tone.curve, torch.zeros(3, 2))
    assert torch.equal(apply_tone(grey[None, :1], tone)[0], grey)


@pytest.mark.parametrize(
    "print_of",
    [lambda y: y * SEPIA, lambda y: 0.15 + 0.7 * y * SEPIA, lambda y: y ** torch.tensor([0.8, 1.0, 1.4]).view(3, 1, 1)],
    ids=["sepia", "faded", "toned"],
)
def test_the_tone_of_a_print_is_found_and_put_back(print_of):
    photo = print_of(grey_photo())
    curve = tone_curve(photo)
    assert curve is not None
    again = apply_tone(luma(photo[None]), curve).clamp(0, 1)
    assert mean_lab_difference(again, photo[None]).item() < 1.5


def test_a_little_noise_does_not_make_a_print_a_colour_photo():
    photo = grey_photo() * SEPIA
    noisy = photo + 0.03 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    assert tone_curve(noisy) is not None


def test_a_colour_photo_has_no_tone():
    assert tone_curve(tiny.photo()) is None


def test_one_coloured_corner_is_colour():
    photo = (grey_photo() * SEPIA).clone()
    photo[:, :60, :60] = torch.tensor([0.2, 0.3, 0.8]).view(3, 1, 1)
    assert tone_curve(photo) is None


def small_people(count=8, side=40):
    """A studio card of one colour with small coloured portraits on it, (3,600,800), and the portraits (N,3,512,512)."""
    photo = torch.tensor([0.62, 0.65, 0.71]).view(3, 1, 1).expand(3, 600, 800).clone()
    skin = 0.4 + 0.6 * luma(tiny.texture(2, 0.2))[0] * torch.tensor([0.95, 0.66, 0.6]).view(3, 1, 1)
    face = F.interpolate(skin[None] * torch.tensor([1.0, 0.7, 0.68]).view(3, 1, 1), (side, side), mode="area")[0]
    for i in range(count):
        photo[:, 200:240, 90 * i + 20 : 90 * i + 60] = face
    return photo, F.interpolate(face[None], (512, 512), mode="bilinear").expand(count, -1, -1, -1)


def test_small_people_before_a_large_sky_are_in_colour():
    photo, faces = small_people()
    assert tone_curve(photo) is not None  # by the ground alone: what went wrong
    assert tone_curve(photo, faces) is None


def test_a_print_with_faces_is_still_a_print():
    faces = F.interpolate(luma(tiny.texture(4, 0.2)) * SEPIA, (512, 512), mode="bilinear")
    assert tone_curve(grey_photo() * SEPIA, faces) is not None


def test_a_dark_portrait_keeps_its_colour():
    photo = F.interpolate(tiny.texture(4, 0.2)[:1], (512, 512), mode="bilinear")[0]
    assert tone_curve(photo) is None
    assert tone_curve(0.08 * photo) is None
    assert tone_curve(0.08 * grey_photo() * SEPIA) is not None


def test_a_tinted_print_is_in_colour():
    faces = luma(F.interpolate(tiny.texture(4, 0.2)[:1], (512, 512), mode="bilinear")).expand(-1, 3, -1, -1).clone()
    photo = F.interpolate(faces, (700, 700), mode="bilinear")[0]
    assert tone_curve(photo, faces) is not None
    cheeks = faces.clone()
    for x in (150, 310):
        cheeks[:, 0, 280:340, x : x + 60] += 0.12
    assert tone_curve(F.interpolate(cheeks, (700, 700), mode="area")[0], cheeks) is None


def test_a_tone_goes_no_further_than_what_it_was_fitted_to():
    photo = 0.4 + 0.1 * grey_photo() * SEPIA
    tone = tone_curve(photo)
    low, high = (apply_tone(torch.full((1, 1, 1, 1), y), tone).flatten() for y in (tone.low, tone.high))
    dark, bright = (apply_tone(torch.full((1, 1, 1, 1), y), tone).flatten() for y in (0.5 * tone.low, 0.95))
    torch.testing.assert_close(dark / dark.mean(), low / low.mean())
    torch.testing.assert_close(bright / bright.mean(), high / high.mean())


def test_toning_keeps_the_luma():
    y = luma(tiny.texture(3))
    curve = tone_curve(grey_photo() * SEPIA)
    toned = apply_tone(y, curve)
    torch.testing.assert_close(luma(toned), y, atol=1e-6, rtol=0)
    assert (toned[:, 0] > toned[:, 2]).float().mean() > 0.9  # warm


def test_a_tinted_face_gets_no_new_colours_and_a_coloured_one_keeps_them():
    colourful = F.interpolate(tiny.texture(4, 0.2), (512, 512), mode="bilinear")
    prints = luma(colourful) * SEPIA
    restored = (
        F.interpolate(tiny.texture(1), (512, 512), mode="bilinear") * 1.6 - 0.3
    )  # brighter and darker than the photo is
    toned = with_tint(restored, torch.cat([prints[:1], colourful[1:]]))
    torch.testing.assert_close(luma(toned), luma(restored), atol=1e-5, rtol=0)
    assert torch.equal(toned[1], restored[1])
    inside = (luma(restored[:1]) > 0.4) & (luma(restored[:1]) < 0.6)
    wanted = luma(restored[:1]) * SEPIA / luma(SEPIA[None])
    assert ((toned[:1] - wanted).abs() * inside).max() < 0.01
    assert (toned[0] - luma(toned[:1])[0]).abs().max() < 0.25  # nor wild ones where the photo had no such brightness


def test_match_tone_gives_brightness_and_contrast_of_the_photo():
    photo = F.interpolate(tiny.texture(4), (512, 512), mode="bilinear") * 0.6 + 0.1
    restored = match_tone(F.interpolate(tiny.texture(1), (512, 512), mode="bilinear"), photo)
    low = [F.avg_pool2d(x, 32)[:, :, 3:-3, 4:-4] for x in (restored, photo)]
    torch.testing.assert_close(low[0].mean((2, 3)), low[1].mean((2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(low[0].std((2, 3)), low[1].std((2, 3)), atol=1e-5, rtol=0)


def test_match_tone_leaves_what_matches():
    photo = F.interpolate(tiny.texture(5), (512, 512), mode="bilinear")
    torch.testing.assert_close(match_tone(photo, photo), photo, atol=1e-5, rtol=0)
