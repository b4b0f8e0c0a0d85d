"""The face parser's training: clusters of cells, and a layer that tells the named ones."""

from __future__ import annotations

import pytest
import torch

from studio.errors import InputError
from studio.networks.head_parts import directions
from studio.training.parts import agreement, cluster_sheet, clusters, fit, make_parts


@pytest.fixture(scope="module")
def maps():
    """Eight faces of four bands: every band has a direction of its own, and noise."""
    rng = torch.Generator().manual_seed(0)
    bands = torch.arange(16)[:, None].expand(16, 16) // 4  # (16, 16)
    middles = 3 * torch.randn(4, 64, generator=rng)
    features = middles[bands].permute(2, 0, 1)[None] + 0.3 * torch.randn(8, 64, 16, 16, generator=rng)
    return features, bands


def standard(features):
    return directions(features, features.mean((0, 2, 3), keepdim=True), features.std((0, 2, 3), keepdim=True))


def test_clusters_are_the_bands(maps):
    features, bands = maps
    labels = clusters(standard(features), 4)
    assert labels.shape == (8, 16, 16)
    assert torch.equal(labels, clusters(standard(features), 4))
    for band in range(4):
        assert len(labels[:, bands == band].unique()) == 1
    assert len(labels.unique()) == 4


def test_the_layer_learns_what_is_named(maps):
    features, bands = maps
    labels = bands.expand(8, -1, -1)
    net = fit(features[:6], labels[:6], skin=[1], hair=[2, 3])
    assert agreement(net, features[6:], labels[6:], [1], [2, 3]) > 0.99
    assert agreement(net, features[6:], labels[6:], [2], [1, 3]) < 0.6  # other names, other answer
    found = net(features[6:]).mean(0)  # (3, 16, 16)
    for part, named in enumerate(([0], [1], [2, 3])):
        inside = torch.isin(bands, torch.tensor(named))
        assert found[part][inside].min() > 0.8 > 0.2 > found[part][~inside].max()


def test_the_sheet_shows_a_row_per_cluster():
    pictures = torch.full((2, 3, 256, 256), 200, dtype=torch.uint8)
    labels = torch.zeros(2, 32, 32, dtype=torch.long)
    labels[:, :, 16:] = 1
    rows = cluster_sheet(pictures, labels, count=2)
    assert [len(row) for row in rows] == [2, 2]
    left, right = rows[0][0][:, :, :128], rows[0][0][:, :, 128:]
    assert left.min() > 4 * right.max()


@pytest.mark.parametrize(("skin", "hair"), [([1], [1]), ([14], [2]), ([-1], [2]), ([1], []), ([], [2])])
def test_bad_names(skin, hair, tmp_path):
    with pytest.raises(InputError, match="skin and hair must be different clusters") as caught:
        make_parts(tmp_path, tmp_path, skin, hair)
    assert "\n" not in str(caught.value)
