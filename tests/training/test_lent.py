"""Training on faces that are drawn and damaged meanwhile."""

import copy

import pytest
import torch

from studio.degradations import degrade
from studio.networks.map_flow import MapFlow
from studio.training import lent
from studio.training.lent import Damagers, FinishPart, FlowPart, Pool, Stream
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


@pytest.mark.alone  # as many steps as three seconds hold
def test_the_flow_learns(stream):
    lines = []
    flow = new_flow().train()
    before = {name: value.clone() for name, value in flow.named_parameters()}
    part = FlowPart(stream, flow, 3, 3e-3, lines.append, batch=4)
    torch.manual_seed(0)
    with torch.no_grad():
        first = part.losses()["velocity"]
    average = part.run()
    torch.manual_seed(0)
    with torch.no_grad():
        assert part.losses()["velocity"] < first
    assert part.step > 2
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert any(not torch.equal(value, before[name]) for name, value in average.named_parameters())


def test_the_finish_leaves_alone_what_the_regressed_map_hangs_on(stream):
    restorer = copy.deepcopy(stream.restorer)
    others = {"cleaner": tiny.cleaner(), "generator": tiny.generator(), "head": tiny.image_head(start=6)}
    part = FinishPart(
        *(stream, restorer, 2, 1e-3),
        **others,
        flow=new_flow(),
        identity=tiny.identity_net(),
        mesh=tiny.face_mesh(),
        batch=2,
        real=1,
    )
    average = part.run()
    assert part.step >= 1
    faces = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(average(faces).features, stream.restorer(faces).features)
    changed = {
        name.split(".")[0]
        for name, value in average.named_parameters()
        if not torch.equal(value, dict(stream.restorer.named_parameters())[name])
    }
    assert {"to_spatial", "to_fine", "to_styles", "refine"} <= changed
