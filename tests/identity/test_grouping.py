"""Average linkage and the measure of detail: against their definitions, on small sets."""

import itertools

import pytest
import torch

from studio import images
from studio.errors import InputError
from studio.identity.grouping import detail, group, mean_distances
from tests import tiny


def defined(vectors, photos, threshold):
    """The definition, with the means computed anew at every step."""
    groups = [[i] for i in range(len(vectors))]

    def apart(a, b):
        if {photos[i] for i in a} & {photos[i] for i in b}:
            return float("inf")
        return sum(float((vectors[i] - vectors[j]).norm()) for i in a for j in b) / (len(a) * len(b))

    while len(groups) > 1:
        a, b = min(itertools.combinations(groups, 2), key=lambda pair: apart(*pair))
        if apart(a, b) > threshold:
            break
        groups = [one for one in groups if one not in (a, b)] + [a + b]
    return sorted((sorted(one) for one in groups), key=lambda one: (-len(one), one[0]))


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.4, 9.0])
@pytest.mark.parametrize("seed", range(3))
def test_is_average_linkage(seed, threshold):
    vectors = torch.rand(14, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    photos = [0, 0, 0, *range(1, 12)]
    found = group(vectors, photos, threshold)
    assert found == defined(vectors, photos, threshold)
    assert sorted(itertools.chain(*found)) == list(range(14))


def test_one_resemblance_does_not_chain():
    """The nearest pair of two groups is near, their mean is not."""
    line = torch.tensor([[0.0], [0.4], [0.8], [1.2]])
    assert group(line, range(4), 0.5) == [[0, 1], [2, 3]]


def test_two_faces_of_a_photo_are_two_people():
    same = torch.zeros(3, 4)
    assert group(same, [0, 0, 1], 1.0) == [[0, 2], [1]]
    assert group(same, [0, 1, 2], 1.0) == [[0, 1, 2]]


def test_few_vectors():
    assert group(torch.empty(0, 4), [], 0.5) == []
    assert group(torch.ones(1, 4), [7], 0.5) == [[0]]
    with pytest.raises(InputError, match="N photos"):
        group(torch.ones(2, 4), [0], 0.5)


def test_mean_distances():
    assert mean_distances(torch.tensor([[0.0], [1.0], [3.0]])).tolist() == [2.0, 1.5, 2.5]


def test_detail_is_what_shrinking_loses():
    sharp = torch.rand(3, 150, 150, generator=torch.Generator().manual_seed(0))
    poor = images.resize(images.resize(sharp, 30, 30), 150, 150)
    lost = detail(torch.stack([sharp, poor, tiny.image(150, 150), torch.full((3, 150, 150), 0.5)]), 52.5, 12.0)
    assert lost[0] > 0.8
    assert lost[1] < 0.4
    assert lost[2] < 0.02
    assert lost[3] < 1e-3
