"""The objective's parts against what they say they are, and the search on a problem with a known answer."""

import math

import pytest
import torch
import torch.nn.functional as F

from studio.latents import bank, consistency, search
from studio.latents.bank import nearest
from studio.latents.consistency import downscale_error
from studio.latents.prior import render
from studio.latents.search import MapMove, Objective, geodesic_cross, to_sphere
from studio.networks.latent_space import LatentSpace
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


@pytest.fixture
def space():
    """Every sample of the bank has its own grey and person."""
    space = LatentSpace(dim=4, bank=20, embedding_dim=3)
    space.bank_latents.copy_(torch.arange(20.0)[:, None].expand(-1, 4))
    space.bank_thumbs.copy_((torch.arange(20) * 10).byte()[:, None, None, None].expand_as(space.bank_thumbs))
    space.bank_embeddings[:, 0] = torch.arange(20.0) % 2
    return space


def numbers(latents):
    return [int(value) for value in latents[:, 0]]


def test_nearest(space):
    grey = torch.full((3, 32, 32), 100 / 255)
    assert numbers(nearest(space, grey, 1)) == [10]
    assert set(numbers(nearest(space, grey, 3))) == {9, 10, 11}
    assert numbers(nearest(space, torch.full((3, 8, 8), 30 / 255), 1)) == [3]


def test_nearest_person(space):
    grey = torch.full((3, 32, 32), 100 / 255)
    odd = nearest(space, grey, 2, embedding=torch.tensor([1.0, 0.0, 0.0]))
    assert set(numbers(odd)) == {9, 11}


def test_nearest_by_brightness_alone(space):
    """Sample 5 is a bright red; by its colours it is far from every grey."""
    space.bank_thumbs[5] = torch.tensor([255, 45, 0], dtype=torch.uint8).view(3, 1, 1)
    grey = torch.full((3, 32, 32), 100 / 255)
    space.bank_thumbs[10] += 20
    assert numbers(nearest(space, grey, 1, grey=True)) == [5]
    assert numbers(nearest(space, grey, 1)) != [5]


def test_nearest_drawn(space):
    grey = torch.full((3, 32, 32), 100 / 255)
    draws = [numbers(nearest(space, grey, 2, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(abs(number - 10) <= 4 for draw in draws for number in draw)


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


def test_render_is_the_generator_averaged():
    generator = tiny.generator(channels=(8,) * 4)
    w = torch.randn(2, 8, requires_grad=True)
    pictures = render(generator, w, 16)
    assert pictures.shape == (2, 3, 16, 16)
    expected = F.avg_pool2d(generator(w) / 2 + 0.5, 4)
    assert torch.allclose(pictures, expected, atol=1e-5)
    pictures.sum().backward()
    assert w.grad.abs().sum() > 0


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


def test_render_adds_to_the_map_of_generator_and_head():
    generator, head = tiny.varied_generator(blocks=4), tiny.image_head(start=3)
    w = torch.randn(2, 8)
    added = 10 * torch.randn(2, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    added.requires_grad_(True)
    for through in (None, head):
        nothing = render(generator, w, 32, through, torch.zeros_like(added))
        assert torch.allclose(nothing, render(generator, w, 32, through), atol=1e-5)
        moved = render(generator, w, 32, through, added)
        assert moved.shape == (2, 3, 32, 32)
        assert (moved - nothing).abs().max() > 0.01
        assert torch.autograd.grad(moved.sum(), added)[0].abs().sum() > 0


# ---- beside the search


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


def test_estimate_finds_the_coordinates_of_a_bank_picture():
    """A bank whose pictures are linear in the latents is regressed well."""
    space = LatentSpace(dim=4, bank=200, embedding_dim=3)
    rng = torch.Generator().manual_seed(0)
    w = torch.rand(200, 4, generator=rng)
    space.bank_latents.copy_(w)
    thumbs = (w @ torch.rand(4, 3 * 16 * 16, generator=rng) / 4).view(200, 3, 16, 16)
    space.bank_thumbs.copy_((255 * thumbs).round().byte())
    space.bank_embeddings.copy_(torch.randn(200, 3, generator=rng))
    wanted = space(w[7:8])
    middle = space(w).mean(0)
    assert (bank.estimate(space, thumbs[7]) - wanted).norm() < 0.3 * (middle - wanted).norm()
    person = bank.estimate(space, thumbs[7], space.bank_embeddings[7])
    assert (person - wanted).norm() < 0.3 * (middle - wanted).norm()
    grey = bank.estimate(space, thumbs[7].mean(0, keepdim=True).expand(3, -1, -1), grey=True)
    assert (grey - wanted).norm() < 0.6 * (middle - wanted).norm()
