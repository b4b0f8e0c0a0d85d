"""Training on faces that are drawn and damaged meanwhile."""

import copy

import pytest
import torch

from studio.degradations import degrade
from studio.networks.map_flow import MapFlow
from studio.training import lent
from studio.training.lent import Damagers, Drawn, DrawnPart, Pool, Stream
from tests import tiny


def new_flow():
    with tiny.seeded():
        return MapFlow(8, 4, 256, 16, stem_width=8, noise=0.1).eval()


@pytest.fixture
def damagers():
    made = Damagers(1, 2)
    yield made
    made.close()


@pytest.fixture
def stream(damagers, monkeypatch):
    monkeypatch.setattr(lent, "REAL_EVERY", 2)
    generator = tiny.generator()
    real = (255 * torch.rand(4, 3, 256, 256, generator=torch.Generator().manual_seed(1))).byte()
    restorer = tiny.restorer(spatial_channels=(8, 8), fine_channels=8, style_slots=9)
    made = Stream(damagers, generator, tiny.image_head(start=6), restorer, new_flow(), real, 16)
    while made.generated.count < 8 or made.photographs.count < 8:
        made.feed()
    return made


def test_a_process_damages_as_the_recipe_does(damagers):
    faces = (torch.rand(lent.TOGETHER, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 255).byte()
    damagers.start(faces)
    while (found := damagers.finished()) is None:
        pass
    slot, damaged, grey = found
    assert slot in damagers.free
    expected, drawn = degrade(faces.float() / 255, lent.RECIPE, torch.Generator().manual_seed(9_000_000))
    assert grey.tolist() == [one["tone"] != "colour" for one in drawn]
    colour = ~grey
    torch.testing.assert_close(damaged[colour].float(), (expected[colour] * 255).round().clamp(0, 255), atol=1, rtol=0)
    assert torch.equal(damaged[grey][:, 0], damaged[grey][:, 1])


def test_a_full_pool_forgets_the_oldest():
    pool = Pool(4, "cpu")
    pool.put(number=torch.arange(3))
    assert set(pool.draw(64)["number"].tolist()) == {0, 1, 2}
    pool.put(number=torch.arange(3, 6))
    assert pool.count == 6
    assert set(pool.draw(64)["number"].tolist()) == {2, 3, 4, 5}


def test_generated_and_real_faces_are_damaged_by_turns(stream):
    assert set(stream.generated.columns) == {"seen", "small", "latents", "grey", "face", "regressed"}
    assert set(stream.photographs.columns) == {"seen", "clean", "grey"}
    w = lent.expand_latents(stream.generated.columns["latents"][:1])
    own = stream.flow.whiten(stream.generator.features(w, lent.START_BLOCK))
    kept = stream.generated.columns["face"][:1].float() / lent.UNIT
    torch.testing.assert_close(kept, own.clamp(-127 / lent.UNIT, 127 / lent.UNIT), atol=1.1 / lent.UNIT, rtol=0)


def part_of(stream, seconds, **settings):
    drawn = Drawn(copy.deepcopy(stream.restorer), new_flow())
    others = {"cleaner": tiny.cleaner(), "generator": tiny.generator(), "head": tiny.image_head(start=6)}
    judges = {"identity": tiny.identity_net(), "mesh": tiny.face_mesh()}
    return DrawnPart(stream, drawn, seconds, 1e-3, lambda line: None, **others, **judges, batch=2, real=1, **settings)


def test_what_draws_learns_and_the_regressed_map_stays(stream):
    part = part_of(stream, 2, maps=4)
    before = {name: value.clone() for name, value in part.net.named_parameters()}
    average = part.run()
    assert part.step >= 1
    assert not any(parameter.requires_grad for parameter in average.parameters())
    faces = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(average.restorer(faces).features, stream.restorer(faces).features)
    changed = {name for name, value in average.named_parameters() if not torch.equal(value, before[name])}
    parts = {".".join(name.split(".")[:2]) for name in changed}
    assert {"restorer.to_spatial", "restorer.to_fine", "restorer.to_styles", "restorer.refine", "flow.leave"} <= parts


def test_the_picture_has_its_say_in_the_flow(stream):
    part = part_of(stream, 0)
    part.trained()
    losses = part.losses()
    losses["velocity"] *= 0
    sum(losses.values()).backward()
    assert part.net.flow.leave[-1].weight.grad.abs().max() > 0
    assert losses["styles"] == 0


def test_the_drawn_maps_are_those_of_the_pipeline(stream, monkeypatch):
    drawn = Drawn(stream.restorer, new_flow())
    torch.nn.init.normal_(drawn.flow.leave[-1].weight, std=0.01)
    small, regressed = torch.rand(2, 3, 256, 256), torch.randn(2, tiny.generator().config.channels[2], 32, 32)
    noise = torch.randn_like(drawn.flow.whiten(regressed))
    monkeypatch.setattr(torch, "randn_like", lambda x: noise)
    with torch.no_grad():
        expected = drawn.flow.sample(small, regressed, lent.CALM * noise, lent.STEPS)
        torch.testing.assert_close(drawn.features(small, regressed), expected)
