"""The two-pathway network: what it takes, that every pathway counts, and where the patches lie."""

import pytest
import torch

from studio.errors import InputError
from studio.faces.templates import LEFT_EYE_CORNERS, MOUTH_CORNERS, RIGHT_EYE_CORNERS
from studio.networks.frontalizer import PATCHES, Frontalizer, patches
from tests import tiny


def given(count=3, side=64):
    rng = torch.Generator().manual_seed(0)
    return (
        torch.rand(count, 3, side, side, generator=rng),
        torch.rand(count, 468, 3, generator=rng),
        torch.randn(count, 128, generator=rng),
    )


def test_two_latents_for_each_face():
    faces, mesh, identities = given()
    with torch.no_grad():
        found = tiny.frontalizer()(faces, mesh, identities)
    assert found.shape == (3, 2, 8)
    assert found.dtype == torch.float32


def test_an_untrained_network_says_the_mean_front():
    net = Frontalizer(64, 64, (8, 8, 8, 8), 16, (8, 8), latent_dim=8)
    coordinates = torch.randn(50, 2, 8)
    faces, mesh, identities = given()
    net.fit(mesh, identities, coordinates)
    assert torch.allclose(net(faces, mesh, identities), coordinates.mean(0).expand(3, -1, -1), atol=1e-6)


def test_every_input_and_every_pathway_counts():
    net, inputs = tiny.frontalizer(), given(1)
    for part in inputs:
        part.requires_grad_(True)
    net(*inputs).square().sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in inputs)
    for pathway in (net.body, *net.local, net.of_mesh):
        assert sum(float(p.grad.abs().sum()) for p in pathway.parameters()) > 0


def test_patches_lie_where_the_mesh_says():
    faces = torch.zeros(1, 3, 100, 100)
    mesh = torch.zeros(1, 468, 3)
    places = {RIGHT_EYE_CORNERS: (0.3, 0.4), LEFT_EYE_CORNERS: (0.7, 0.4), MOUTH_CORNERS: (0.5, 0.8)}
    for points, (x, y) in places.items():
        mesh[:, list(points), 0], mesh[:, list(points), 1] = x, y
        faces[:, :, round(100 * y) - 2 : round(100 * y) + 2, round(100 * x) - 2 : round(100 * x) + 2] = 1
    for (points, _), cut in zip(PATCHES, patches(faces, mesh, 20), strict=True):
        assert cut.shape == (1, 3, 20, 20)
        if points in places:
            assert cut[..., 9:11, 9:11].mean() > 0.9
            assert cut[..., :4, :4].mean() < 0.1


def test_shapes_are_checked():
    faces, mesh, identities = given()
    net = tiny.frontalizer()
    for wrong in ((faces[..., :32], mesh, identities), (faces, mesh[:2], identities), (faces, mesh, identities[:1])):
        with pytest.raises(InputError, match="align the faces"):
            net(*wrong)


def test_the_real_one_is_small():
    assert sum(p.numel() for p in Frontalizer().parameters()) <= 2_200_000
