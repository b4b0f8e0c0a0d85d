"""The identity network: shapes and gradients at toy size, parity with dlib on the real weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio import weights
from studio.errors import InputError
from studio.networks.identity import IdentityNet, padded_sum

# What dlib itself gives for `smooth_chip`, first 16 of 128 numbers.
DLIB_SAYS = [
    -0.082599,
    0.062924,
    0.034401,
    -0.017021,
    -0.089347,
    -0.051568,
    -0.070398,
    -0.000939,
    0.103617,
    -0.041735,
    0.182097,
    -0.046304,
    -0.250828,
    -0.025743,
    0.000436,
    0.096833,
]


def smooth_chip():
    """(1,3,150,150) whole levels of 1/255: a picture that any machine draws alike."""
    y, x = torch.meshgrid(torch.arange(150), torch.arange(150), indexing="ij")
    levels = torch.stack([(x * 3 + y) % 256, (x + y * 2) % 256, (x * y // 40) % 256])
    return levels[None].float() / 255


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return IdentityNet(size=32, channels=(4, 8, 8), depths=(1, 2, 1), embedding_dim=6).eval()


@pytest.fixture(scope="module")
def real():
    return weights.load("identity").requires_grad_(False)


def test_shapes(tiny):
    x = torch.rand(2, 3, 32, 32)
    assert tiny(x).shape == (2, 6)
    assert [tuple(m.shape) for m in tiny.features(x)] == [(2, 4, 6, 6), (2, 8, 3, 3), (2, 8, 1, 1)]


def test_round_trip(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(IdentityNet.from_pretrained(tmp_path)(x), tiny(x))


def test_gradient_reaches_the_picture(tiny):
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    tiny(x).square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_batch_equals_loop(tiny):
    x = torch.rand(3, 3, 32, 32)
    assert torch.allclose(tiny(x), torch.cat([tiny(one[None]) for one in x]), atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 31, 32)])
def test_refuses_other_shapes(tiny, shape):
    with pytest.raises(InputError):
        tiny(torch.zeros(shape))


def test_padded_sum_fills_at_the_end():
    total = padded_sum(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 1, 3))
    assert total.tolist() == [[[[2, 2, 1], [1, 1, 0]], [[1, 1, 1], [0, 0, 0]]]]


@pytest.mark.weights
def test_stored_descriptor(real):
    assert np.allclose(real(smooth_chip())[0, :16].numpy(), DLIB_SAYS, atol=1e-5)


@pytest.mark.weights
@pytest.mark.slow
def test_parity_with_dlib(real, tmp_path):
    dlib = pytest.importorskip("dlib")
    archive = weights.obtain(weights.entry("identity").archive, tmp_path)
    (tmp_path / "model.dat").write_bytes(weights.read_members(archive, weights.entry("identity").members)[0])
    reference = dlib.face_recognition_model_v1(str(tmp_path / "model.dat"))
    noise = torch.randint(0, 256, (3, 3, 150, 150), generator=torch.Generator().manual_seed(0)) / 255
    for chip in torch.cat([smooth_chip(), noise]):
        levels = (chip * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        expected = np.array(reference.compute_face_descriptor(levels))
        assert np.abs(expected - real(chip[None])[0].numpy()).max() < 1e-5
