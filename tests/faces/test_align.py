from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from studio.errors import InputError
from studio.faces import align
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.templates import ARCFACE_TEMPLATE, DLIB_POINTS, DLIB_TEMPLATE, FACEXLIB_TEMPLATE, FIVE_POINTS
from tests.faces.synthetic import head, smooth_image

TRANSFORMS = (align.ffhq_transform, align.facexlib_transform)
IDENTITY = np.array([[[1.0, 0, 0], [0, 1, 0]]])


def similarity(scale, angle=0.0, x=0.0, y=0.0):
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    return np.array([[[c, -s, x], [s, c, y]]])


def test_ffhq_of_an_upright_head_is_as_in_the_paper():
    mesh = head((200, 150), height=100)
    affine = align.ffhq_transform(mesh, 512)
    # By hand: eyes 34 apart at (200, 140), mouth 38 below; half a side is max(2 · 34, 1.8 · 38) = 68.4.
    expected = [[136.8 / 512, 0, 200 - 68.4], [0, 136.8 / 512, 143.8 - 68.4]]
    np.testing.assert_allclose(affine[0], expected, rtol=1e-5, atol=1e-5)
    assert affine.dtype == np.float32


@pytest.mark.parametrize("make", [align.ffhq_transform, align.dlib_transform])
def test_crops_follow_the_head(make):
    size = 150
    plain = make(head((100, 100), height=80), size)
    moved = make(head((300, 40), height=160, roll=30), size)
    points = head((100, 100), height=80)[..., :2]
    others = head((300, 40), height=160, roll=30)[..., :2]
    seen = align.transform_points(points, align.invert(plain))
    np.testing.assert_allclose(align.transform_points(others, align.invert(moved)), seen, atol=1e-2)
    assert make(np.zeros((0, 468, 3)), size).shape == (0, 2, 3)


def test_dlib_chip_puts_the_points_on_the_template():
    mesh = head()
    template = (DLIB_TEMPLATE + 0.25) / 1.5 * 150
    mesh[0, list(DLIB_POINTS), :2] = template * 0.7 + (30, 40)
    np.testing.assert_allclose(align.dlib_transform(mesh)[0], [[0.7, 0, 30], [0, 0.7, 40]], atol=1e-4)


def test_dlib_fit_is_the_least_squares_one():
    mesh = head(yaw=30)
    target = mesh[0, list(DLIB_POINTS), :2].astype(np.float64)
    template = (DLIB_TEMPLATE + 0.25) / 1.5 * 150
    rows = np.zeros((10, 4))
    rows[0::2] = np.stack([template[:, 0], -template[:, 1], np.ones(5), np.zeros(5)], 1)
    rows[1::2] = np.stack([template[:, 1], template[:, 0], np.zeros(5), np.ones(5)], 1)
    a, b, x, y = np.linalg.lstsq(rows, target.ravel(), rcond=None)[0]
    np.testing.assert_allclose(align.dlib_transform(mesh)[0], [[a, -b, x], [b, a, y]], rtol=1e-5)


def test_collapsed_meshes_are_refused():
    with pytest.raises(InputError, match="coincide"):
        align.ffhq_transform(np.zeros((1, 468, 3)), 512)
    with pytest.raises(InputError, match="468"):
        align.dlib_transform(np.zeros((1, 5, 3)))


def test_invert_and_transform_points_are_inverse():
    affine = np.concatenate([similarity(2.5, 30, 5, -7), similarity(0.1, -100, 2000, 3)])
    points = np.random.default_rng(0).uniform(-50, 50, (2, 7, 2))
    there = align.transform_points(points, affine)
    np.testing.assert_allclose(align.transform_points(there, align.invert(affine)), points, atol=1e-3)
    tensors = align.transform_points(torch.from_numpy(points), torch.from_numpy(affine))
    np.testing.assert_allclose(tensors.numpy(), there)
    with pytest.raises(InputError, match="invertible"):
        align.invert(np.zeros((1, 2, 3)))


def test_identity_and_whole_shifts_copy_pixels(rng):
    image = torch.rand(3, 20, 30, generator=rng)
    torch.testing.assert_close(align.warp(image, IDENTITY, 20)[0], image[:, :, :20], atol=1e-5, rtol=0)
    shifted = align.warp(image, similarity(1, 0, 7, 2), 10)[0]
    torch.testing.assert_close(shifted, image[:, 2:12, 7:17], atol=1e-5, rtol=0)


def test_quarter_turns_and_mirrors_copy_pixels(rng):
    image = torch.rand(3, 16, 16, generator=rng)
    turned = align.warp(image, np.array([[[0.0, -1, 16], [1, 0, 0]]]), 16)[0]
    torch.testing.assert_close(turned, image.rot90(1, (1, 2)), atol=1e-5, rtol=0)
    mirrored = align.warp(image, np.array([[[-1.0, 0, 16], [0, 1, 0]]]), 16)[0]
    torch.testing.assert_close(mirrored, image.flip(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.2, 1.3, 3.7, 8.0])
def test_pixel_centres_at_every_scale(scale):
    # A picture that holds its own coordinates tells where a crop's pixels come from.
    y, x = torch.meshgrid(torch.arange(400) + 0.5, torch.arange(300) + 0.5, indexing="ij")
    affine = similarity(scale, 20, 120, 60)
    centres = np.stack(np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5), -1).reshape(1, -1, 2)
    expected = align.transform_points(centres, affine)[0]
    for mode in ("bicubic", "bilinear"):
        seen = align.resample(torch.stack([x, y]), affine[0], 20, 20, mode=mode).flatten(1).T
        error = (seen.numpy() - expected) / max(scale, 1)
        # The filters wave a little around a straight line, but displace nothing.
        assert np.abs(error).max() < 0.06 and np.abs(error.mean(0)).max() < 0.01


@pytest.mark.parametrize("scale", [2.0, 4.3, 9.0])
def test_fine_detail_is_averaged_and_not_aliased(scale):
    board = ((torch.arange(256)[:, None] + torch.arange(256)) % 2).float().expand(3, 256, 256)
    crop = align.warp(board, similarity(scale, 10, 60, 20), 16)
    assert (crop - 0.5).abs().max() < 0.05


def test_outside_is_the_mirror_image(rng):
    image = torch.rand(3, 9, 7, generator=rng)
    mirrored = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (9, 9), (7, 7)), mode="symmetric"))
    crop = align.warp(image, similarity(1, 0, -7, -9), 21)[0]
    torch.testing.assert_close(crop, mirrored[:, :21], atol=1e-5, rtol=0)
    corner = align.warp(image, similarity(1, 0, 5, 6), 9)[0]  # leaves the photo on two sides, part of it unseen
    torch.testing.assert_close(corner, mirrored[:, 15:24, 12:21], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (1, 50), (50, 2)])
@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0, 500.0])
def test_tiny_photos_and_crops_far_larger_than_they(shape, scale, rng):
    image = torch.rand(3, *shape, generator=rng)
    crop = align.warp(image, similarity(scale, 33, -20 * scale, 7 * scale), 24)
    assert crop.shape == (1, 3, 24, 24) and crop.isfinite().all()
    assert crop.min() > -0.3 and crop.max() < 1.3


def test_scales_mix_in_one_call():
    image = smooth_image(80, 120)
    affines = np.concatenate([similarity(s, 15, 30, 10) for s in (0.2, 1.0, 4.0)])
    together = align.warp(image, affines, 16)
    for i in range(3):
        torch.testing.assert_close(together[i], align.warp(image, affines[[i]], 16)[0])
    one_each = align.warp(torch.stack([image, image, image]), torch.from_numpy(affines), 16)
    torch.testing.assert_close(one_each, together)
    assert align.warp(image, np.zeros((0, 2, 3)), 16).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("scale", [0.6, 2.5])
def test_gradients_reach_the_image(scale, rng):
    image = torch.rand(3, 9, 8, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: align.warp(x, similarity(scale, 20, -2, 1), 4), (image,))


def test_bilinear_stays_in_range_and_zeros_are_zeros():
    image = torch.ones(1, 8, 8)
    crop = align.resample(image, similarity(1, 30, -6, -6)[0], 20, 24, mode="bilinear", outside="zeros")
    assert crop.shape == (1, 20, 24) and crop.min() == 0 and crop.max() <= 1 + 1e-6
    assert crop[0, 0, 0] == 0 and crop.amax() > 0.99


@pytest.mark.alone
def test_a_huge_photo_costs_only_what_the_crop_shows():
    huge = torch.zeros(3, 1, 1).expand(3, 8000, 8000)  # a copy would take 768 MB
    start = time.perf_counter()
    align.warp(huge, similarity(0.5, 10, 7900, 100), 256)
    assert time.perf_counter() - start < 1


def test_refuses_bad_input():
    image = torch.zeros(3, 8, 8)
    with pytest.raises(InputError, match="float"):
        align.warp(image.to(torch.uint8), IDENTITY, 8)
    with pytest.raises(InputError, match="pixels"):
        align.warp(torch.zeros(3, 0, 8), IDENTITY, 8)
    with pytest.raises(InputError, match=r"\(1,3,H,W\)"):
        align.warp(torch.zeros(2, 3, 8, 8), IDENTITY, 8)
    with pytest.raises(InputError, match="finite"):
        align.warp(image, IDENTITY * np.nan, 8)
    with pytest.raises(InputError, match="2,3"):
        align.warp(image, np.eye(3)[None], 8)


@pytest.mark.parametrize(
    ("make", "template", "size"),
    [
        (align.facexlib_transform, FACEXLIB_TEMPLATE, 512),
        (align.arcface_transform, ARCFACE_TEMPLATE, 112),
    ],
)
def test_published_templates_put_the_points_where_they_are_wanted(make, template, size):
    mesh = head()
    for indices, place in zip(FIVE_POINTS, template * size, strict=True):
        mesh[0, list(indices), :2] = place * 0.7 + (30, 40)
    np.testing.assert_allclose(make(mesh, size)[0], [[0.7, 0, 30], [0, 0.7, 40]], atol=1e-4)
    with pytest.raises(InputError):
        make(np.zeros((1, 5, 2)), size)


def test_arcface_crops_are_least_squares_in_the_crop():
    """Points that don't fit exactly: its training moved them to the template, and measured the error there."""
    mesh, rng = head(), np.random.default_rng(0)
    places = ARCFACE_TEMPLATE * 112 * 1.4 + (30, 40) + rng.normal(0, 6, (5, 2))
    for indices, place in zip(FIVE_POINTS, places, strict=True):
        mesh[0, list(indices), :2] = place
    x, y = places.T
    zero, one = np.zeros(5), np.ones(5)
    rows = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, right, down = np.linalg.lstsq(rows, (ARCFACE_TEMPLATE * 112).T.ravel(), rcond=None)[0]
    wanted = align.invert(np.array([[[a, -b, right], [b, a, down]]]))
    np.testing.assert_allclose(align.arcface_transform(mesh), wanted, rtol=1e-4, atol=1e-3)


def test_arcface_template_counts_from_edges_and_not_from_centres():
    """As published, whole numbers are the centres of pixels; here a pixel's centre is at a half."""
    np.testing.assert_allclose(ARCFACE_TEMPLATE[2] * 112, (56.0252 + 0.5, 71.7366 + 0.5))


def test_the_template_of_published_restorers_is_about_that_of_ffhq():
    """A mean face lies alike in both: the crops differ by a few pixels."""
    mesh = MEAN_MESH[None] * 512
    corners = np.array([[(0, 0), (512, 0), (512, 512)]], np.float32)
    ours, theirs = (align.transform_points(corners, make(mesh, 512)) for make in TRANSFORMS)
    assert np.abs(ours - theirs).max() < 20
