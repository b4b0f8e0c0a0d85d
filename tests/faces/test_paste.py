from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.errors import InputError
from studio.faces import align, paste
from studio.faces.templates import CHIN, FOREHEAD, MOUTH_CORNERS, NOSE_BASE
from tests.faces.synthetic import head, smooth_image

# smoothstep is 1.5 times steeper than a ramp of the same width, and at most two of them cross.
STEEPEST = 1.5 / paste.FEATHER + 1.5 / paste.BORDER


def psnr(a, b):
    return -10 * torch.log10((a - b).square().mean()).item()


def test_mask_covers_the_face_and_not_the_corners():
    mesh = head((200, 150), height=100)
    affine = align.ffhq_transform(mesh, 128)
    mask = paste.soft_mask(mesh, affine, 128)
    assert mask.shape == (1, 1, 128, 128) and mask.dtype == torch.float32
    assert mask.min() >= 0 and mask.max() == 1
    inner = align.transform_points(mesh[..., :2], align.invert(affine))[0]
    inside = inner[[CHIN, FOREHEAD, NOSE_BASE, *MOUTH_CORNERS]].astype(int)
    assert all(mask[0, 0, y, x] > 0.95 for x, y in inside)
    # Above the forehead it goes on into the hair, below the chin it ends within the feather.
    x, y = inner[FOREHEAD].astype(int)
    assert mask[0, 0, y - 8, x] > 0.9
    x, y = inner[CHIN].astype(int)
    assert mask[0, 0, min(y + 17, 127), x] < 0.05
    assert max(mask[0, 0, v, u] for u in (4, -5) for v in (4, -5)) < 0.1


def test_mask_takes_hair_in_that_is_near():
    mesh = head((200, 150), height=100)
    affine = align.ffhq_transform(mesh, 128)
    plain = paste.soft_mask(mesh, affine, 128)
    none, left = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1
    torch.testing.assert_close(paste.soft_mask(mesh, affine, 128, none), plain)
    with_hair = paste.soft_mask(mesh, affine, 128, left)
    assert (with_hair >= plain - 1e-6).all()
    gained = (with_hair - plain)[0, 0]
    assert gained[:, :60].max() > 0.7  # beside the face
    assert gained[:, 72:].max() < 1e-4  # where there is none
    assert with_hair[0, 0, 125, 3] < 0.3  # far away
    for edge in (with_hair[0, 0, 0], with_hair[0, 0, -1], with_hair[0, 0, :, 0], with_hair[0, 0, :, -1]):
        assert (edge == 0).all()
    with pytest.raises(InputError, match="one map of hair per mesh"):
        paste.soft_mask(mesh, affine, 128, none.repeat(2, 1, 1, 1))


@pytest.mark.parametrize("size", [2, 16, 128, 512])
@pytest.mark.parametrize("pose", [(0, 0, 0), (70, 0, 0), (-30, 20, 140)])
def test_mask_ends_before_the_crop_does(size, pose):
    mesh = head((200, 150), height=300, yaw=pose[0], pitch=pose[1], roll=pose[2])
    mask = paste.soft_mask(mesh, align.ffhq_transform(mesh, size), size)[0, 0]
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert (edge == 0).all()
    if size >= 128:  # no neighbours differ by more than the feather and the border's fade together could make them
        steepest = max(mask.diff(dim=0).abs().max(), mask.diff(dim=1).abs().max())
        assert steepest < STEEPEST / size


def test_profile_mask_holds_the_nose():
    mesh = head((200, 150), height=100, yaw=80)
    affine = align.ffhq_transform(mesh, 128)
    x, y = align.transform_points(mesh[..., :2], align.invert(affine))[0, NOSE_BASE].astype(int)
    assert paste.soft_mask(mesh, affine, 128)[0, 0, y, x] > 0.9


def test_mask_turns_with_the_face():
    upright, turned = head(), head(roll=77)
    masks = [paste.soft_mask(m, align.ffhq_transform(m, 64), 64) for m in (upright, turned)]
    torch.testing.assert_close(*masks, atol=1e-2, rtol=0)


@pytest.mark.parametrize("height", [40, 120, 300])  # the crop is larger than, like, and smaller than its place
def test_round_trip_changes_nothing_visible(height):
    image = smooth_image(420, 500)
    mesh = head((240, 220), height=height, roll=12)
    affine = align.ffhq_transform(mesh, 128)
    result = paste.blend(image, align.warp(image, affine, 128), paste.soft_mask(mesh, affine, 128), affine)
    x0, y0 = mesh[0, :, :2].min(0).astype(int)
    x1, y1 = mesh[0, :, :2].max(0).astype(int)
    assert psnr(result[:, y0:y1, x0:x1], image[:, y0:y1, x0:x1]) > 38
    assert not torch.equal(result, image)


@pytest.mark.parametrize("height", [30, 150])
def test_bits_outside_the_mask_stay(height, rng):
    image = torch.rand(3, 300, 320, generator=rng)
    before = image.clone()
    mesh = head((150, 140), height=height, roll=-20)
    affine = align.ffhq_transform(mesh, 64)
    mask = paste.soft_mask(mesh, affine, 64)
    result = paste.blend(image, torch.ones(1, 3, 64, 64), mask, affine)
    assert torch.equal(image, before)
    # Sampled by hand: a photo pixel whose crop pixels, with two neighbours on each side, are all empty.
    reach = torch.nn.functional.max_pool2d(torch.nn.functional.pad(mask, (8, 8, 8, 8)), 5, 1, 2)[0, 0] > 0
    y, x = np.mgrid[0:300, 0:320] + 0.5
    spot = align.transform_points(np.stack([x, y], -1).reshape(1, -1, 2), align.invert(affine))[0]
    spot = torch.from_numpy(np.clip(np.floor(spot) + 8, 0, 79).astype(int))
    outside = ~reach[spot[:, 1], spot[:, 0]].reshape(300, 320)
    assert 0.1 < outside.float().mean() < 0.999
    assert torch.equal(result[:, outside], image[:, outside])
    inside_face = result[:, 140, 150]
    torch.testing.assert_close(inside_face, torch.ones(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("height", [30, 100, 250])
def test_a_constant_offset_leaves_no_edge(height):
    image = torch.full((3, 300, 300), 0.4)
    mesh = head((150, 160), height=height)
    affine = align.ffhq_transform(mesh, 128)
    mask = paste.soft_mask(mesh, affine, 128)
    change = paste.blend(image, torch.full((1, 3, 128, 128), 0.6), mask, affine) - image
    side = 128 * np.hypot(*affine[0, :, 0])  # of the crop, in pixels of the photo
    steepest = max(change.diff(dim=1).abs().max(), change.diff(dim=2).abs().max()).item()
    assert steepest < 0.2 * min(1, STEEPEST / side) * 1.05
    assert change.min() >= -1e-6 and change.max() == pytest.approx(0.2, abs=1e-4)


def test_overlapping_faces_keep_their_cores_in_any_order():
    image = torch.full((3, 200, 300), 0.5)
    mesh = np.concatenate([head((120, 100), height=80), head((175, 100), height=80)])
    affine = align.ffhq_transform(mesh, 96)
    masks = paste.soft_mask(mesh, affine, 96)
    crops = torch.stack([torch.full((3, 96, 96), 0.1), torch.full((3, 96, 96), 0.9)])
    result = paste.blend(image, crops, masks, affine)
    backwards = paste.blend(image, crops.flip(0), masks.flip(0), affine[::-1])
    torch.testing.assert_close(result, backwards, atol=1e-5, rtol=0)
    assert result[0, 100, 110].item() == pytest.approx(0.1, abs=0.01)
    assert result[0, 100, 185].item() == pytest.approx(0.9, abs=0.01)
    assert (result[0, 100, 100:200].diff() > -1e-4).all()  # one passes into the other, without a gap between


def test_surroundings_reach_to_the_border_but_not_into_other_faces():
    meshes = np.concatenate([head((x, 100)) for x in (120, 190, 900)])  # the third is far away
    to_image = align.ffhq_transform(meshes[:1], 512)
    mask = paste.soft_mask(meshes[:1], to_image, 512)
    alone = paste.with_surroundings(mask, meshes[[0, 2]], [0], to_image)
    beside = paste.with_surroundings(mask, meshes, [0], to_image)
    assert (alone >= mask).all() and alone[0, 0, 100, 60] == pytest.approx(paste.AROUND, abs=0.01)
    assert alone[0, 0, 0].max() == 0 and alone[0, 0, :, -1].max() == 0
    other = paste.soft_mask(meshes[[1]], to_image, 512)
    assert beside[(other > 0.99) & (mask == 0)].max() < 0.01
    assert torch.equal(beside[other == 0], alone[other == 0])


def test_faces_over_the_edge_or_out_of_the_photo():
    image = smooth_image(60, 60)
    mesh = np.concatenate([head((2, 30), height=40), head((500, 500), height=40)])
    affine = align.ffhq_transform(mesh, 32)
    masks = paste.soft_mask(mesh, affine, 32)
    result = paste.blend(image, align.warp(image, affine, 32) + 0.1, masks, affine)
    assert result.isfinite().all() and result.shape == image.shape
    assert (result - image)[:, 30, 0].min() > 0.05
    assert torch.equal(result[:, :, 50:], image[:, :, 50:])


def test_no_faces():
    image = smooth_image(8, 8)
    none = np.zeros((0, 2, 3), np.float32)
    masks = paste.soft_mask(np.zeros((0, 468, 3)), none, 16)
    assert masks.shape == (0, 1, 16, 16)
    result = paste.blend(image, torch.zeros(0, 3, 16, 16), masks, none)
    assert torch.equal(result, image) and result is not image


def test_an_enlarged_photo_takes_the_scaled_affine():
    mesh = head((60, 60), height=50)
    affine = align.ffhq_transform(mesh, 64)
    masks = paste.soft_mask(mesh, affine, 64)
    result = paste.blend(torch.zeros(3, 240, 240), torch.ones(1, 3, 64, 64), masks, affine * 2)
    assert result[0, 120, 120] > 0.99


def test_detail_finer_than_the_crop_stays_where_it_is_kept():
    """A large sharp face, left as it was by the restoration, comes out as it went in; without that it is softened."""
    rng = torch.Generator().manual_seed(0)
    image = (smooth_image(200, 200) + 0.1 * torch.rand(3, 200, 200, generator=rng)).clamp(0, 1)
    mesh = head((100, 100), height=110)
    affine = align.ffhq_transform(mesh, 64)
    assert align.scale_of(affine)[0] > 2
    masks, crops = paste.soft_mask(mesh, affine, 64), align.warp(image, affine, 64)
    for share in (0.0, 0.5, 1.0):
        kept = torch.full_like(masks, share)
        lost = (paste.blend(image, crops, masks, affine, crops, kept) - image)[:, 90:110, 90:110].abs().mean()
        softened = (paste.blend(image, crops, masks, affine) - image)[:, 90:110, 90:110].abs().mean()
        assert lost == pytest.approx((1 - share) * softened.item(), abs=1e-4)
    brighter = paste.blend(image, crops + 0.1, masks, affine, crops, torch.ones_like(masks))
    torch.testing.assert_close((brighter - image)[:, 90:110, 90:110], torch.full((3, 20, 20), 0.1), atol=1e-3, rtol=0)


def test_refuses_what_does_not_fit():
    image, affine = torch.zeros(3, 8, 8), np.array([[[1.0, 0, 0], [0, 1, 0]]])
    with pytest.raises(InputError, match="crops must be"):
        paste.blend(image, torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8), affine)
    with pytest.raises(InputError, match="crops must be"):
        paste.blend(image, torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), affine)
    with pytest.raises(InputError, match="one affine per mesh"):
        paste.soft_mask(head(), np.zeros((0, 2, 3)), 8)
