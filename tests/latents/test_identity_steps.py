"""Steps towards a person, with toy networks."""

from types import SimpleNamespace

import pytest
import torch

from studio.identity.encoder import IdentityEncoder
from studio.latents import identity_steps as steps_module
from studio.latents.identity_steps import identity_steps
from studio.latents.measure import embed, place_aligned
from studio.latents.prior import render
from tests import tiny
from tests.faces.synthetic import head


@pytest.fixture
def parts():
    """Prior, space, finder, encoder, drawing function."""
    prior = tiny.varied_generator().requires_grad_(False)
    encoder = IdentityEncoder(tiny.identity_net().requires_grad_(False))
    return prior, tiny.latent_space(), tiny.finder(), encoder, lambda w: render(prior, w, 64)


def person(parts, w):
    _, _, finder, encoder, draw = parts
    with torch.no_grad():
        picture = draw(w).clamp(0, 1)
        return embed(encoder, picture, place_aligned(finder, picture).mesh)[0]


def run(parts, w, wanted, **settings):
    _, space, finder, encoder, draw = parts
    return identity_steps(draw, w, wanted, space, finder, encoder, **settings)


def latents(parts, *rows):
    return parts[0].slots(parts[1].bank_latents[list(rows)]).clone()


def test_comes_nearer_to_the_person(parts, monkeypatch):
    # A mesh with random weights jumps, and the chip with it: here the face stays where it is.
    mesh = torch.from_numpy(head((32, 36), 30.0)).float()
    monkeypatch.setattr(steps_module, "trace_aligned", lambda finder, pictures: (mesh, torch.ones(1)))
    _, _, _, encoder, draw = parts
    with torch.no_grad():
        wanted = embed(encoder, draw(latents(parts, 1)).clamp(0, 1), mesh.numpy())[0]
    found = run(parts, latents(parts, 0), wanted, steps=25, rate=0.2, pull=0.0)
    assert float(found.after) < 0.7 * float(found.before)
    with torch.no_grad():
        reached = embed(encoder, draw(found.w).clamp(0, 1), mesh.numpy())[0]
    assert float((reached - wanted).norm()) == pytest.approx(float(found.after), rel=1e-3)
    assert 0 < int(found.step) <= 25


def test_an_age_that_is_asked_for_is_held_against_the_person(parts, monkeypatch):
    """The person is as old as the start is not: without holding it, the face takes on the person's age."""
    mesh = torch.from_numpy(head((32, 36), 30.0)).float()
    monkeypatch.setattr(steps_module, "trace_aligned", lambda finder, pictures: (mesh, torch.ones(1)))
    _, space, _, encoder, draw = parts

    def seen(w):
        with torch.no_grad():
            return embed(encoder, draw(w).clamp(0, 1), mesh.numpy())[0]

    wanted, first = seen(latents(parts, 1)), seen(latents(parts, 0))
    space.readings[0] = 40 * (wanted - first) / (wanted - first).square().sum()  # 40 years apart
    start = float(space.read(first))
    free, held = (
        float(space.read(seen(run(parts, latents(parts, 0), wanted, steps=25, rate=0.2, pull=0.0, age=age).w)))
        for age in (None, start)
    )
    assert abs(held - start) < 5 < abs(free - start)


def test_slots_that_are_to_stay_stay(parts):
    wanted, w = person(parts, latents(parts, 1)), latents(parts, 0)
    found = run(parts, w, wanted, steps=4, slots=3, pull=0.0)
    assert int(found.step) > 0
    assert not torch.allclose(found.w[:, :3], w[:, :3], atol=1e-4)
    assert torch.allclose(found.w[:, 3:], w[:, 3:], atol=1e-4)


def test_a_strong_pull_keeps_the_face(parts):
    wanted, w = person(parts, latents(parts, 1)), latents(parts, 0)
    free, held = (run(parts, w, wanted, steps=8, pull=pull).w for pull in (0.0, 1e4))
    assert (held - w).norm() < (free - w).norm() / 3


def test_each_face_goes_its_own_way(parts):
    wanted = torch.stack([person(parts, latents(parts, k)) for k in (2, 3)])
    w = latents(parts, 0, 1)
    together = run(parts, w, wanted, steps=4)
    for i in (0, 1):
        alone = run(parts, w[i : i + 1], wanted[i], steps=4)
        assert torch.allclose(together.w[i], alone.w[0], atol=1e-3)


def test_no_step_gives_the_start_back(parts):
    w = latents(parts, 0)
    found = run(parts, w, person(parts, latents(parts, 1)), steps=0)
    assert torch.allclose(found.w, w, atol=1e-4)
    assert torch.equal(found.before, found.after)


def test_the_exact_picture_is_what_comes_near(parts, monkeypatch):
    """A quick way to draw that is always darker: only a look at the exact picture tells what is reached."""
    monkeypatch.setattr(steps_module, "CHECK_EVERY", 4)
    mesh = torch.from_numpy(head((32, 36), 30.0)).float()
    placed = SimpleNamespace(mesh=mesh.numpy())
    monkeypatch.setattr(steps_module, "trace_aligned", lambda finder, pictures: (mesh, torch.ones(1)))
    monkeypatch.setattr(steps_module, "place_aligned", lambda finder, pictures: placed)
    _, space, finder, encoder, draw = parts
    with torch.no_grad():
        wanted = embed(encoder, draw(latents(parts, 1)).clamp(0, 1), mesh.numpy())[0]
    settings = {"steps": 24, "rate": 0.2, "pull": 0.0}

    def reached(**more):
        found = identity_steps(
            lambda w: 0.5 * draw(w), latents(parts, 0), wanted, space, finder, encoder, **settings, **more
        )
        with torch.no_grad():
            return found, float((embed(encoder, draw(found.w).clamp(0, 1), mesh.numpy())[0] - wanted).norm())

    (_, blind), (found, checked) = reached(), reached(exact=draw)
    assert checked < 0.9 * blind
    assert float(found.after) == pytest.approx(checked, abs=1e-3)  # 24 is a step at which it looked


def test_a_wanted_pose_changes_the_way(parts):
    wanted, w = person(parts, latents(parts, 1)), latents(parts, 0)
    free = run(parts, w, wanted, steps=3).w
    posed = run(parts, w, wanted, steps=3, pose=torch.tensor([[40.0, 0.0]])).w
    assert not torch.equal(free, posed)


def test_the_callback_sees_every_step_and_the_caller_may_be_in_inference_mode(parts):
    seen = []
    wanted, w = person(parts, latents(parts, 1)), latents(parts, 0)
    with torch.inference_mode():
        run(parts, w, wanted, steps=3, on_step=lambda step, w, distance: seen.append((step, tuple(w.shape))))
    assert seen == [(step, (1, 8, 8)) for step in range(4)]
