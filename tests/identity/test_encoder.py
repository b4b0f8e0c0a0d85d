"""Identity vectors from photographs: alignment, mirroring, comparing; at toy size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.errors import InputError
from studio.faces.align import dlib_transform, warp
from studio.identity import similarity
from studio.identity.encoder import BATCH, IdentityEncoder
from studio.networks.identity import IdentityNet

# Outer and inner corner of the left eye, of the right eye, and the nose base, in a 100 px face.
POINTS = {263: (80, 30), 362: (62, 31), 33: (20, 30), 133: (38, 31), 2: (50, 62)}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return IdentityEncoder(IdentityNet(size=32, channels=(4, 8), depths=(1, 1), embedding_dim=6).eval())


@pytest.fixture(scope="module")
def photo():
    return torch.rand(3, 120, 110, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def meshes():
    mesh = np.zeros((2, 468, 3), np.float32)
    for index, point in POINTS.items():
        mesh[:, index, :2] = point
    mesh[1, :, :2] += 5
    return mesh


def test_embed_is_align_then_embed(encoder, photo, meshes):
    vectors = encoder.embed(photo, meshes)
    assert vectors.shape == (2, 6)
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, encoder.embed_chips(warp(photo, dlib_transform(meshes, 32), 32)))


def test_faces_of_a_group_are_embedded_alone_alike(encoder, photo, meshes):
    both = encoder.embed(photo, meshes)
    assert torch.allclose(both[1:], encoder.embed(photo, meshes[1:]), atol=1e-6)


def test_mirrored_chips_give_the_same_vector(encoder):
    chips = torch.rand(2, 3, 32, 32)
    assert torch.allclose(encoder.embed_chips(chips), encoder.embed_chips(chips.flip(-1)), atol=1e-6)


def test_many_chips_come_back_in_order(encoder):
    chips = torch.rand(BATCH + 3, 3, 32, 32)
    vectors = encoder.embed_chips(chips)
    assert torch.allclose(vectors[-1:], encoder.embed_chips(chips[-1:]), atol=1e-6)
    assert len(vectors) == BATCH + 3


def test_gradient_reaches_the_photograph(encoder, photo, meshes):
    photo = photo.clone().requires_grad_()
    encoder.embed(photo, meshes).sum().backward()
    assert photo.grad.abs().sum() > 0


def test_no_faces_no_vectors(encoder, photo):
    assert encoder.embed(photo, np.zeros((0, 468, 3), np.float32)).shape == (0, 6)


def test_refuses_other_shapes(encoder, photo, meshes):
    with pytest.raises(InputError, match="one at a time"):
        encoder.embed(photo[None], meshes)
    with pytest.raises(InputError, match="chips"):
        encoder.embed_chips(torch.zeros(1, 3, 31, 32))


def test_distance():
    a, b = torch.tensor([[0.0, 0], [3, 0]]), torch.tensor([[3.0, 4]])
    assert similarity.distance(a, b).tolist() == [5, 4]
    assert similarity.distances(a, a).tolist() == [[0, 3], [3, 0]]
    with pytest.raises(InputError):
        similarity.distance(a, torch.zeros(3, 2))


def test_cosine():
    assert similarity.cosine(torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 2]])).item() == 0


def test_average_is_on_the_sphere():
    mean = similarity.average([torch.tensor([2.0, 0]), torch.tensor([0.0, 1])])
    assert torch.allclose(mean, torch.tensor([1.0, 1]) * 1.5 / 2**0.5)
    with pytest.raises(InputError):
        similarity.average([])
