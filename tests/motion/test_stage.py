"""The stage: what a photograph's face is made into, and frames of it."""

import numpy as np
import pytest
import torch

from studio.faces import align, paste
from studio.motion.dense import warp
from studio.motion.head import HeadPoses, head_poses, rotations
from studio.motion.stage import DRAWN, as_coloured, draw, make_stage
from studio.tone import luma, tone_curve
from tests import tiny
from tests.motion.moving import MESH

# Where the mean face lies in the photo: turned a little, its aligned crop well inside.
TO_PHOTO = np.array([[0.97, -0.1], [0.1, 0.97]]) * 180, np.array([60.0, 40.0])


def photo(seed=0):
    return tiny.image(300, 320, seed=seed)


def mesh():
    linear, shift = TO_PHOTO
    flat = MESH[:, :2] @ linear.T + shift
    return np.concatenate([flat, 180 * MESH[:, 2:]], 1)[None].astype(np.float32)


def staged(picture=None, size=DRAWN, tone=None):
    with torch.no_grad():
        return make_stage(
            photo() if picture is None else picture, mesh(), size, tone, tiny.depth_net(), tiny.reenactor()
        )


def turned(made, yaw=15.0):
    """The stage's mesh (1,468,3), turned."""
    pose = head_poses(made.mesh[None])
    return HeadPoses(pose.scale, rotations(np.array([[yaw, 0, 0]])) @ pose.rotation, pose.translation).place(
        pose.remove(made.mesh[None])
    )


@torch.no_grad()
def frame(made, meshes, net=True):
    return draw(made, made.still.flow(meshes), tiny.reenactor() if net else None)


def grey():
    return luma(photo()[None])[0].expand(3, -1, -1).contiguous()


@pytest.mark.parametrize("size", [256, 512])
def test_what_a_stage_holds(size):
    made, affine = staged(size=size)
    assert made.crop.shape == (1, 3, size, size)
    assert made.small.shape == (1, 3, DRAWN, DRAWN)
    assert made.mask.shape == (1, 1, size, size)
    assert made.depth.shape == (1, 1, 64, 64)
    assert (made.small is made.crop) == (size == DRAWN)
    there = align.transform_points(made.mesh[None, :, :2] * size, affine)
    np.testing.assert_allclose(there, mesh()[..., :2], atol=0.05)
    expected = align.warp(photo(), affine, size).clamp(0, 1)
    assert torch.equal(made.crop, expected)


@pytest.mark.parametrize("size", [256, 512])
def test_an_unmoved_face_is_its_crop(size):
    made, _ = staged(size=size)
    still = frame(made, made.mesh[None], net=False)
    assert (still - made.crop).abs().mean() < 0.003
    assert (frame(made, turned(made), net=False) - made.crop).abs().mean() > 0.01


def test_the_head_may_change_and_the_edge_of_the_crop_may_not():
    made, _ = staged()
    mask = made.mask[0, 0]
    assert mask[100:180, 90:170].min() == 1
    rim = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    assert rim.max() < 0.05
    assert mask.min() >= 0


def test_a_stitched_photo_keeps_its_bits_outside_the_mask():
    made, affine = staged()
    source = photo()
    moved = frame(made, turned(made))
    whole = paste.blend(source, moved, made.mask, affine)
    reach = paste.blend(torch.zeros_like(source), torch.ones_like(moved), made.mask, affine)
    outside = reach[0] == 0
    assert outside.float().mean() > 0.3
    assert torch.equal(whole[:, outside], source[:, outside])
    assert not torch.allclose(whole, source, atol=0.02)


def test_a_photo_of_one_tone_stays_in_it():
    picture = grey()
    tone = tone_curve(picture)
    made, _ = staged(picture, tone=tone)
    assert made.small is not made.crop
    assert torch.equal(made.small[:, 0], made.small[:, 1])
    for net in (True, False):
        moved = frame(made, turned(made), net)
        assert torch.allclose(moved[:, 0], moved[:, 1], atol=1e-6)
        assert torch.allclose(moved[:, 1], moved[:, 2], atol=1e-6)


def test_a_sepia_photo_stays_sepia():
    y = luma(photo()[None])[0]
    picture = torch.cat([(y + 0.06).clamp(0, 1), y, (y - 0.08).clamp(0, 1)])
    tone = tone_curve(picture)
    assert tone is not None
    moved = frame(staged(picture, tone=tone)[0], turned(staged(picture, tone=tone)[0]))[0]
    shown = (luma(moved[None])[0, 0] > 0.3) & (luma(moved[None])[0, 0] < 0.7)
    assert torch.allclose((moved[0] - moved[2])[shown], torch.tensor(0.14), atol=0.03)


def test_the_network_draws_what_it_masks_and_the_warp_the_rest():
    made, _ = staged()
    flow = made.still.flow(turned(made))
    net = tiny.reenactor()
    with torch.no_grad():
        warped = warp(made.crop, flow.source).clamp(0, 1)
        drawn, mask = net(warped, flow.geometry, flow.source, made.looked)
        expected = (warped + mask * (as_coloured(drawn, warped) - warped)).clamp(0, 1)
    assert torch.allclose(draw(made, flow, net), expected, atol=1e-6)
    assert not torch.allclose(expected, warped, atol=1e-2)


@pytest.mark.parametrize("size", [256, 512])
def test_a_batch_is_a_loop(size):
    made, _ = staged(size=size)
    meshes = np.concatenate([turned(made, yaw) for yaw in (-10, 0, 20)])
    together = frame(made, meshes)
    for i in range(3):
        assert torch.allclose(together[i : i + 1], frame(made, meshes[i : i + 1]), atol=1e-4)
    assert together.shape == (3, 3, size, size)
    assert 0 <= together.min() <= together.max() <= 1


def test_no_colour_that_the_still_has_nowhere_near():
    """Teal beside skin comes out grey, skin stays skin, and the brightness is the drawn one's."""
    skin = torch.tensor([0.8, 0.6, 0.5]).view(1, 3, 1, 1).expand(-1, -1, 64, 64)
    teal = torch.tensor([0.2, 0.6, 0.6]).view(1, 3, 1, 1).expand(-1, -1, 64, 64)
    found = as_coloured(teal, skin)
    assert torch.allclose(luma(found), luma(teal), atol=1e-5)
    assert (found - luma(found)).abs().max() < 0.02
    assert torch.allclose(as_coloured(skin, skin), skin, atol=1e-5)
    assert torch.allclose(as_coloured(teal, teal), teal, atol=1e-5)
