"""Small pictures: how far a large one is from shrinking to one, and how it is made to."""

import pytest
import torch
import torch.nn.functional as F

from studio.latents import consistency
from studio.latents.consistency import downscale_error
from tests import tiny


def test_error_is_the_mean_square_after_shrinking():
    small = tiny.image(8, 8)
    large = F.interpolate(small[None], scale_factor=4, mode="nearest").expand(2, -1, -1, -1)
    assert downscale_error(large, small).max() < 2e-3
    shifted = downscale_error((0.5 * large + 0.1).clamp(0, 1), 0.5 * small)
    assert shifted == pytest.approx([0.01, 0.01], abs=1e-3)


def test_face_error_looks_at_the_face_only():
    small = torch.full((3, 32, 32), 0.5)
    border, middle = small.clone(), small.clone()
    border[:, :, :4] += 0.3
    middle[:, 17:19, 15:17] += 0.3
    pictures = torch.stack([small, border, middle])
    nothing, outside, inside = consistency.face_error(pictures, small).tolist()
    assert nothing == outside == 0
    assert inside > float(downscale_error(pictures, small)[2]) > 0


def test_back_projection_makes_a_picture_shrink_to_the_small_one_and_keeps_its_detail():
    small, large = (
        tiny.image(8, 8, seed=1),
        0.2 + 0.6 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
    )
    small = 0.3 + 0.4 * small
    done = consistency.back_project(large, small)
    assert downscale_error(large, small).min() > 5e-3
    assert downscale_error(done, small).max() < 1e-4
    fine = [picture - F.avg_pool2d(F.pad(picture, [4] * 4, "reflect"), 9, 1) for picture in (large, done)]
    assert (fine[0] - fine[1]).abs().mean() < 0.2 * fine[0].abs().mean()
