"""The objective's parts against what they say they are, and the search on a problem with a known answer."""

import math

import pytest
import torch
import torch.nn.functional as F

from studio.latents import search
from studio.latents.consistency import downscale_error
from studio.latents.search import MapMove, Objective, geodesic_cross, to_sphere


def test_cross_is_the_sum_of_squared_angles():
    angles = torch.tensor([[0.0, 0.3, 1.0], [0.5, 0.5, 0.5]])
    v = 3 * torch.stack([angles.cos(), angles.sin()], -1)
    expected = 0.3**2 + 1.0**2 + 0.7**2
    assert geodesic_cross(v) == pytest.approx([expected, 0.0], abs=1e-4)
    opposite = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert geodesic_cross(opposite) == pytest.approx([math.pi**2], abs=1e-2)


def test_cross_has_a_slope_where_all_slots_are_one():
    v = torch.ones(1, 3, 4, requires_grad=True)
    geodesic_cross(v).sum().backward()
    assert torch.isfinite(v.grad).all()


def test_to_sphere():
    v = torch.randn(5, 7)
    assert to_sphere(v, 2.0).norm(dim=-1) == pytest.approx([2.0] * 5, rel=1e-5)


# ---- a picture that is the first slots themselves


def draw(v):
    """Slots (N,2,12) -> pictures (N,3,2,2): the mean of both slots, about 0.5."""
    return (v.mean(1) / 10 + 0.5).view(-1, 3, 2, 2)


def find(target, objective=None, start=None, **changed):
    start = to_sphere(torch.randn(3, 12, generator=torch.Generator().manual_seed(1)), 3.0)[:, None].repeat(1, 2, 1)
    settings = {"steps": 60, "rate": 0.2, **changed}
    return start, search.search(draw, start, target, objective or Objective(), **settings)


@pytest.fixture
def target():
    return draw(to_sphere(torch.randn(1, 12, generator=torch.Generator().manual_seed(9)), 3.0)[:, None])[0]


def test_search_finds_and_stays_on_the_sphere(target):
    start, found = find(target)
    assert downscale_error(draw(start), target).min() > 5e-3
    assert found.error.max() <= search.EPSILON
    assert torch.equal(downscale_error(draw(found.v), target), found.error)
    assert torch.allclose(found.v.norm(dim=-1), torch.full((3, 2), 3.0), atol=1e-4)


def test_the_best_step_is_kept_and_not_the_last(target):
    """Thrown back to a bad place near the end, the search does not get as far again."""
    seen = []
    far = -to_sphere(target.reshape(12) - 0.5, 3.0).expand(3, 2, 12)

    def throw_back(step, v, error):
        seen.append(error)
        return far if step == 10 else None

    _, found = find(target, Objective(cross=0.0, threshold=1e-9), steps=12, on_step=throw_back)
    errors = torch.stack(seen)  # (steps, N)
    assert torch.equal(found.error, errors.min(0).values)
    assert found.step.tolist() == errors.argmin(0).tolist()
    assert found.step.tolist() == [10, 10, 10]


def test_extra_cost_is_minimised_too(target):
    def dark(pictures, step):
        return 1000 * pictures.square().flatten(1).mean(1)

    plain, darker = find(target)[1], find(target, Objective(extra=dark))[1]
    assert draw(darker.v).mean() < draw(plain.v).mean() - 0.01


def test_what_on_step_returns_replaces_the_latents(target):
    fixed = to_sphere(torch.ones(3, 2, 12), 3.0)
    states = []

    def on_step(step, v, error):
        states.append(v.clone())
        return fixed

    find(target, steps=3, on_step=on_step)
    assert torch.allclose(states[1], fixed, atol=1.0)
    assert not torch.equal(states[0], fixed)


def test_it_ends_when_all_are_found(target):
    seen = []

    def record(step, v, error):
        seen.append(bool((error <= search.AIM * search.EPSILON).all()))

    find(target, steps=400, on_step=record)
    assert len(seen) < 400
    assert seen.index(True) + search.SETTLE >= len(seen) - 1


def test_an_approximation_is_corrected_by_exact_pictures(target):
    """The approximation is 0.05 too bright everywhere: an error of 0.0025 that it cannot see by itself."""
    start = to_sphere(torch.randn(3, 12, generator=torch.Generator().manual_seed(1)), 3.0)[:, None].repeat(1, 2, 1)

    def bright(v):
        return draw(v) + 0.05

    looks = []

    def exact(v):
        looks.append(1)
        return draw(v)

    blind = search.search(bright, start, target, Objective(), steps=60, rate=0.2)
    seeing = search.search(bright, start, target, Objective(), steps=60, rate=0.2, exact=exact)
    assert downscale_error(draw(blind.v), target).min() > 2e-3
    assert downscale_error(draw(seeing.v), target).max() <= 2e-3
    assert len(looks) < 10
    assert torch.allclose(downscale_error(draw(seeing.v), target), seeing.error, atol=1e-6)


# ---- latents and a map


def draw_with_map(v, added=None):
    """Pictures of 4 px: the slots give every second pixel, and a map (N,3,4,4) is added to all."""
    picture = F.interpolate(draw(v), (4, 4))
    return picture if added is None else picture + added


@pytest.fixture
def stripes(target):
    """Something that `draw` cannot draw."""
    return F.interpolate(target[None], (4, 4))[0] + 0.1 * torch.tensor([1.0, -1.0, 1.0, -1.0])


def find_with_map(target, after=20, objective=None, **changed):
    start = to_sphere(torch.randn(3, 12, generator=torch.Generator().manual_seed(1)), 3.0)[:, None].repeat(1, 2, 1)
    maps = MapMove(torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(2)), after=after)
    settings = {"steps": 60, "rate": 0.2, "maps": maps, **changed}
    return maps, search.search(draw_with_map, start, target, objective or Objective(), **settings)


def test_a_map_shows_what_latents_cannot(stripes):
    maps, found = find_with_map(stripes)
    _, alone = find_with_map(stripes, maps=None)
    assert alone.error.min() > 5e-3
    assert alone.added is None
    assert alone.map_shift.tolist() == [0, 0, 0]
    assert found.error.max() <= search.EPSILON
    assert torch.allclose(downscale_error(draw_with_map(found.v, found.added), stripes), found.error)
    assert torch.allclose(found.v.norm(dim=-1), torch.full((3, 2), 3.0), atol=1e-4)
    in_spreads = found.added / maps.start.std((2, 3), keepdim=True)
    assert found.map_shift == pytest.approx(in_spreads.square().mean((1, 2, 3)).sqrt().tolist(), rel=1e-5)


def test_the_map_waits_for_the_latents(stripes):
    _, found = find_with_map(stripes, after=12, steps=12)
    _, alone = find_with_map(stripes, maps=None, steps=12)
    assert torch.equal(found.v, alone.v)
    assert not found.added.any()


def test_a_map_stays_where_latents_are_enough(target):
    easy = F.interpolate(target[None], (4, 4))[0]
    _, found = find_with_map(easy, after=40, objective=Objective(threshold=2e-2))
    assert found.error.max() <= 2e-2
    assert found.map_shift.max() == 0


def test_maps_are_corrected_by_exact_pictures_and_only_those_count(stripes):
    seen = []

    def exact(v, added=None):
        seen.append(added is not None)
        return draw_with_map(v, added) - 0.05

    _, found = find_with_map(stripes, exact=exact)
    assert seen[0] is False
    assert seen[-1] is True
    assert torch.allclose(downscale_error(exact(found.v, found.added), stripes), found.error, atol=1e-6)
    assert found.error.max() <= search.EPSILON


# ---- beside the search
