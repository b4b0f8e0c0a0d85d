"""Recipes do what they say, the same way every time, at every size."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from studio.degradations import RECIPES, Recipe, degrade, ops
from studio.degradations.recipes import Ageing
from studio.errors import InputError

PLAIN = ["gfpgan", "codeformer_large", "mild"]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def faces(count=2, size=32):
    """Smooth coloured pictures with an edge, not noise: JPEG and blur then behave as on photographs."""
    coarse = torch.rand(count, 3, 4, 4, generator=rng(7))
    images = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    images[..., size // 2 :] *= 0.5
    return images


def test_published_ranges():
    assert (RECIPES["gfpgan"].sigma, RECIPES["gfpgan"].factor) == ((0.1, 10), (0.8, 8))
    assert (RECIPES["gfpgan"].noise, RECIPES["gfpgan"].quality) == ((0, 20), (60, 100))
    assert (RECIPES["gfpgan"].kernel_size, RECIPES["gfpgan"].isotropic) == (41, 0.5)
    large = RECIPES["codeformer_large"]
    assert (large.sigma, large.factor, large.noise, large.quality) == ((1, 15), (4, 30), (0, 20), (30, 80))
    for mixed in ("training", "training_mild", "training_all"):
        assert sum(share for _, share in RECIPES[mixed].choices) == pytest.approx(1)


@pytest.mark.parametrize("size", [1, 4, 5, 37, 256])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_at_every_size(name, size):
    images = faces(2, size)
    before = images.clone()
    results, drawn = degrade(images, name, rng())
    assert results.shape == images.shape
    assert results.dtype == torch.float32
    assert torch.isfinite(results).all()
    assert results.min() >= 0
    assert results.max() <= 1
    assert len(drawn) == 2
    json.dumps(drawn)
    assert torch.equal(images, before), "the caller's images were changed"


def test_full_size():
    results, _ = degrade(faces(1, 512), "old_photo", rng())
    assert results.shape == (1, 3, 512, 512)


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("name", RECIPES)
def test_black_and_white_stay_finite(name, level):
    results, _ = degrade(torch.full((6, 3, 32, 32), level), name, rng(3))
    assert torch.isfinite(results).all()


@pytest.mark.parametrize("name", RECIPES)
def test_deterministic_and_a_batch_is_a_loop(name):
    images = faces(4)
    first, drawn = degrade(images, name, rng(5))
    torch.manual_seed(123)  # the global generator has no say
    again, drawn_again = degrade(images, name, rng(5))
    assert torch.equal(first, again)
    assert drawn == drawn_again
    generator = rng(5)
    loop = torch.cat([degrade(image[None], name, generator)[0] for image in images])
    assert torch.equal(first, loop)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "none"])
def test_images_of_a_batch_differ(name):
    images = faces(1).expand(8, -1, -1, -1)
    results, _ = degrade(images, name, rng())
    assert not torch.equal(results[0], results[1]) or not torch.equal(results[1], results[2])


@pytest.mark.parametrize("name", PLAIN)
def test_parameters_in_range(name):
    recipe = RECIPES[name]
    _, drawn = degrade(faces(1, 8).expand(150, -1, -1, -1), name, rng())
    for parameters in drawn:
        assert parameters["recipe"] == name
        assert all(recipe.sigma[0] <= sigma <= recipe.sigma[1] for sigma in parameters["sigma"])
        assert recipe.factor[0] <= parameters["factor"] <= recipe.factor[1]
        assert recipe.noise[0] <= parameters["noise"] <= recipe.noise[1]
        assert recipe.quality[0] <= parameters["quality"] <= recipe.quality[1]
    round_ones = sum("angle" not in parameters for parameters in drawn)
    assert 45 < round_ones < 105
    assert {parameters["down"] for parameters in drawn} == {"bilinear", "bicubic", "area"}


def test_ageing_in_range():
    ageing = Ageing()
    _, drawn = degrade(faces(1, 128).expand(40, -1, -1, -1), "old_photo", rng())
    for parameters in drawn:
        for key in ("gain", "lift", "grain", "grain_size", "texture"):
            low, high = getattr(ageing, key)
            assert low <= parameters[key] <= high
        assert len(parameters["copies"]) <= RECIPES["old_photo"].copies
    assert {parameters["tone"] for parameters in drawn} == {"grey", "sepia", "duotone", "colour"}
    for key in ("pitch", "vignette", "black", "scratches", "specks", "sharpen"):
        assert 0 < sum(key in parameters for parameters in drawn) < 40, key


def test_training_mixes():
    _, drawn = degrade(faces(1, 8).expand(200, -1, -1, -1), "training", rng())
    shares = {name: sum(p["recipe"] == name for p in drawn) / 200 for name, _ in RECIPES["training"].choices}
    for name, share in RECIPES["training"].choices:
        assert shares[name] == pytest.approx(share, abs=0.11)


def test_none_changes_nothing():
    images = faces()
    assert torch.equal(degrade(images, "none", rng())[0], images)


def test_grey_recipe_gives_grey():
    for base in ("gfpgan", "codeformer_large"):
        results, drawn = degrade(faces(), dataclasses.replace(RECIPES[base], grey_chance=1.0), rng())
        assert torch.equal(results[:, :1].expand_as(results), results)
        assert all(parameters["tone"] == "grey" for parameters in drawn)


@pytest.mark.parametrize(("tone", "is_grey"), [("grey", True), ("sepia", False), ("duotone", False)])
def test_tones(tone, is_grey):
    recipe = dataclasses.replace(RECIPES["old_photo"], ageing=Ageing(tones=((tone, 1.0),)))
    results, drawn = degrade(faces(4, 64), recipe, rng())
    assert torch.equal(results[:, :1].expand_as(results), results) is is_grey
    assert all(parameters["tone"] == tone for parameters in drawn)


def test_order(monkeypatch):
    called = []

    def spy(name):
        function = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *given: called.append(name) or function(*given))

    for name in ("blur", "resize", "noise", "jpeg", "colour_shift", "luminance"):
        spy(name)
    recipe = dataclasses.replace(RECIPES["gfpgan"], colour_shift_chance=1.0, grey_chance=1.0)
    degrade(faces(1), recipe, rng())
    assert called == ["blur", "resize", "noise", "jpeg", "resize", "colour_shift", "luminance"]


def test_damage_means_the_same_at_every_size():
    """256 px and 512 px of one picture, damaged with the same draws, are the same picture."""
    recipe = Recipe("same", (8, 8), isotropic=1.0, factor=(8, 8))
    large = faces(1, 512)
    small = ops.resize(large[0], 256, "area")[None]
    damaged, damaged_small = degrade(large, recipe, rng())[0], degrade(small, recipe, rng())[0]
    assert (ops.resize(damaged[0], 256, "area") - damaged_small[0]).abs().mean() < 0.01


def test_low_resolution_side(monkeypatch):
    sides = []
    resize = ops.resize
    monkeypatch.setattr(ops, "resize", lambda image, side, mode: sides.append(side) or resize(image, side, mode))
    for factor, size, expected in [(8, 512, 64), (8, 256, 64), (1, 256, 256), (30, 256, 17), (4, 4, 4)]:
        sides.clear()
        degrade(faces(1, size), Recipe("one", factor=(factor, factor)), rng())
        assert sides == [expected, size]


def test_noise_has_its_strength():
    results, _ = degrade(torch.full((1, 3, 128, 128), 0.5), Recipe("noisy", noise=(20, 20), reference_size=128), rng())
    assert results.std().item() == pytest.approx(20 / 255, rel=0.05)


@pytest.mark.parametrize("recipe", ["typo", ""])
def test_unknown_recipe(recipe):
    with pytest.raises(InputError, match="gfpgan, codeformer_large"):
        degrade(faces(), recipe, rng())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 8, 8), r"\(N,3,S,S\)"),
        (torch.rand(1, 3, 8, 9), r"\(N,3,S,S\)"),
        (torch.rand(1, 1, 8, 8), r"\(N,3,S,S\)"),
        (torch.rand(1, 3, 8, 8).double(), "float32"),
        (torch.rand(1, 3, 8, 8) * 255, r"\[0,1\]"),
        (torch.rand(1, 3, 8, 8) * 2 - 1, r"\[0,1\]"),
        (torch.full((1, 3, 8, 8), float("nan")), r"\[0,1\]"),
    ],
)
def test_refuses(images, message):
    with pytest.raises(InputError, match=message):
        degrade(images, "mild", rng())


def test_empty_batch():
    results, drawn = degrade(torch.empty(0, 3, 16, 16), "training", rng())
    assert results.shape == (0, 3, 16, 16)
    assert drawn == []


class TestOps:
    def test_kernel(self):
        kernel = ops.gaussian_kernel(2.0, 1.0, 0.0, 3)
        assert kernel.sum().item() == pytest.approx(1)
        assert (kernel[3, 4] / kernel[3, 3]).item() == pytest.approx(math.exp(-1 / 8))  # one px along x, sigma 2
        assert (kernel[4, 3] / kernel[3, 3]).item() == pytest.approx(math.exp(-1 / 2))  # one px along y, sigma 1
        turned = ops.gaussian_kernel(2.0, 1.0, math.pi / 2, 3)
        assert torch.allclose(turned, kernel.T, atol=1e-6)

    @pytest.mark.parametrize("radius", [1, 5, 12])
    def test_blur_is_the_convolution(self, radius):
        image = torch.rand(3, 33, 28, generator=rng())
        padded = torch.nn.functional.pad(image[None], (radius,) * 4, mode="reflect")[0]
        kernel = ops.gaussian_kernel(4.0, 5.0, 0.7, radius)
        # convolution of an even kernel is correlation
        expected = torch.nn.functional.conv2d(padded[:, None], kernel[None, None])[:, 0]
        assert torch.allclose(ops.blur(image, 4.0, 5.0, 0.7, radius), expected, atol=1e-5)

    def test_blur_keeps_a_flat_image(self):
        flat = torch.full((3, 40, 40), 0.3)
        assert torch.allclose(ops.blur(flat, 5.0, 2.0, 0.4, 20), flat, atol=1e-5)

    def test_jpeg_gives_eight_bits_and_quality_matters(self):
        image = torch.rand(3, 32, 32, generator=rng())
        fine, coarse = ops.jpeg(image, 100), ops.jpeg(image, 10)
        assert torch.allclose((fine * 255).round(), fine * 255, atol=1e-4)
        assert (fine - image).abs().mean() < (coarse - image).abs().mean()
        assert ops.jpeg(image[:1], 80).shape == (1, 32, 32)

    def test_screen_prints_the_tone(self):
        for kind in ("dots", "lines"):
            pattern = ops.screen(120, 6.0, 0.4, kind)
            assert pattern.min() >= -1e-6
            assert pattern.max() <= 1 + 1e-6
            means = [
                ops.halftone(torch.full((1, 120, 120), tone), pattern, 30.0, 1.0).mean() for tone in (0.2, 0.5, 0.8)
            ]
            assert means[0] < means[1] < means[2]
            assert means[1].item() == pytest.approx(0.5, abs=0.03)

    def test_fade_and_tone_curve(self):
        image = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 3)
        assert ops.fade(image, 0.2, 0.8).flatten().tolist() == pytest.approx([0.2, 0.5, 0.8])
        assert ops.tone_curve(image, 2.0, 0.1).flatten().tolist() == pytest.approx([0, 0.6, 1])

    def test_duotone(self):
        plane = torch.tensor([0.0, 1.0]).view(1, 1, 2)
        printed = ops.duotone(plane, (0.1, 0.2, 0.3), (0.9, 0.8, 0.7))
        assert printed[:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert printed[:, 0, 1].tolist() == pytest.approx([0.9, 0.8, 0.7])

    def test_marks_are_where_they_are(self):
        for mask in (ops.scratches(64, 3, 0.5, rng()), ops.dust(64, 20, 3.0, rng())):
            assert mask.shape == (1, 64, 64)
            assert 0 < mask.mean() < 0.5
            stained = ops.stain(torch.full((3, 64, 64), 0.4), mask, 1.0)
            assert torch.equal(stained == 0.4, (mask == 0).expand(3, -1, -1))

    def test_vignette_spares_the_middle(self):
        image = torch.full((1, 41, 41), 0.5)
        result = ops.vignette(image, 1.0, 0.6, (0.0, 0.0), 0.0)
        assert result[0, 20, 20] == 0.5
        assert result[0, 0, 0] == 0


class TestWeb:
    def test_what_was_drawn_is_said_and_lies_in_the_ranges(self):
        web = RECIPES["web"].web
        _, drawn = degrade(faces(12, 128), "web", rng(2))
        passes = [once for parameters in drawn for once in parameters["web"]]
        assert {len(parameters["web"]) for parameters in drawn} == set(range(1, web.passes + 1))
        assert all(web.side[0] <= once["side"] <= web.side[1] for once in passes)
        assert {once["down"] for once in passes} == set(ops.KERNELS)
        assert len({once["up"] for once in passes}) == 4
        assert any(encoder.startswith("webp") for once in passes for encoder in once["encoders"])
        assert any("sharpen" in once for once in passes)
        assert any("median" in once for once in passes)

    def test_square_pixels_stay_square(self):
        image = faces(1, 64)[0]
        blocks = ops.resample(ops.resample(image, 8, "box"), 64, "nearest")
        cells = blocks.unfold(1, 8, 8).unfold(2, 8, 8)
        assert torch.equal(cells.amax((-1, -2)), cells.amin((-1, -2)))

    @pytest.mark.parametrize("kernel", ops.KERNELS)
    def test_kernels_shrink_and_enlarge(self, kernel):
        image = faces(1, 64)[0]
        assert ops.resample(image, 16, kernel).shape == (3, 16, 16)
        assert (ops.resample(ops.resample(image, 96, kernel), 64, kernel) - image).abs().mean() < 0.05

    def test_subsampled_colours_are_coarser(self):
        stripes = torch.zeros(3, 32, 32)
        stripes[0, :, ::2], stripes[2, :, 1::2] = 1.0, 1.0
        fine, coarse = (ops.jpeg(stripes, 95, subsampling) for subsampling in (0, 2))
        assert (fine - stripes).abs().mean() < 0.5 * (coarse - stripes).abs().mean()

    def test_a_beauty_filter_smooths_skin_and_leaves_edges(self):
        image = torch.full((3, 64, 64), 0.3)
        image[:, :, 32:] = 0.8
        noisy = image + 0.02 * torch.randn(image.shape, generator=rng(1))
        smooth = ops.smooth_skin(noisy, 4, 0.06)
        assert (smooth - image)[:, :, :24].std() < 0.5 * (noisy - image)[:, :, :24].std()
        assert smooth[:, :, 33].mean() - smooth[:, :, 30].mean() > 0.4

    def test_a_median_takes_specks(self):
        image = torch.full((3, 32, 32), 0.5)
        image[:, 10, 10] = 1.0
        assert ops.median(image, 3)[:, 10, 10].max() < 0.51

    def test_webp_of_grey_stays_a_plane(self):
        plane = faces(1, 32)[0, :1]
        assert ops.webp(plane, 80).shape == plane.shape


class TestWounds:
    def test_creases_cross_the_picture(self):
        mask = ops.creases(128, 1, 4, rng(3))[0]
        rows, columns = (mask > 0.5).any(1), (mask > 0.5).any(0)
        assert max(rows.sum(), columns.sum()) > 90
        assert 0.005 < (mask > 0.5).float().mean() < 0.15

    def test_writing_and_stains_cover_a_part(self):
        assert 0.002 < ops.writing(128, 3, 2, rng(1)).mean() < 0.3
        stain = ops.blotches(128, 3, rng(1))
        assert 0.01 < stain.mean() < 0.7
        assert stain.min() >= 0
        assert stain.max() <= 1

    def test_the_recipe_scratches_most_faces(self):
        _, drawn = degrade(faces(20, 64), "scratched", rng(4))
        assert sum("creases" in parameters for parameters in drawn) >= 10
        assert any("words" in parameters for parameters in drawn)
        assert any("stains" in parameters for parameters in drawn)


def test_a_camera_adds_noise_of_the_size_that_is_asked_for():
    grey, generator = torch.full((3, 256, 256), 0.5), rng(0)
    for tint in (0.0, 1.0):
        found = ops.sensor_noise(grey, 0.05, 0.0, tint, (0.0, 2.0), generator) - grey
        light = ops.luminance(found)
        assert light.std().item() == pytest.approx(0.05, rel=0.1)
        assert (found - light).std().item() == pytest.approx(0.05 * tint, rel=0.25, abs=1e-6)
    clumps = ops.sensor_noise(grey, 0.05, 0.0, 0.0, (1.5, 0.0), generator)[0] - 0.5
    neighbours = (clumps[:, 1:] * clumps[:, :-1]).mean() / clumps.square().mean()
    assert neighbours > 0.7 and clumps.std().item() == pytest.approx(0.05, rel=0.1)
    light_and_dark = torch.stack([torch.full((3, 256, 256), level) for level in (0.1, 0.9)])
    dark, bright = ((ops.sensor_noise(x, 0.02, 0.8, 0.0, (0.0, 0.0), generator) - x).std() for x in light_and_dark)
    assert bright > 1.5 * dark
