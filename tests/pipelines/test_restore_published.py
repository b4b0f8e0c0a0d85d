"""RestorePipeline with restorers that others published: toy networks behind everything that ours has."""

import numpy as np
import pytest
import torch

from pipelines import restore
from pipelines.restore import RestorePipeline
from studio import models, weights
from studio.errors import InputError
from studio.faces import align
from studio.networks.codeformer import CodeFormer
from studio.networks.gfpgan import GFPGAN
from studio.networks.restoreformer import RestoreFormer
from studio.tone import luma, tone_curve, with_tone
from tests import parity, tiny
from tests.convert import test_torch
from tests.tiny import seeded

# Real crops (512 px), few channels.
TOYS = {
    "gfpgan": lambda: GFPGAN(widths=(8, 8, 8, 8, 8, 8, 8, 8), latent_dim=8, mapping_depth=1),
    "codeformer": lambda: CodeFormer(
        width=8, multipliers=(1, 1, 1, 1, 1, 1), codes=16, codes_dim=8, dim=8, heads=2, layers=1, fused=(32,)
    ),
    "restoreformer": lambda: RestoreFormer(width=8, multipliers=(1, 1, 1, 1, 1, 1), codes=16, codes_dim=8, heads=2),
}


def toy(name):
    with seeded():
        return parity.fill(TOYS[name]())


def pipeline(name="gfpgan"):
    ours = tiny.restore_pipeline()
    parts = {part: getattr(ours, part) for part in ("cleaner", *weights.FACE_NETWORKS)}
    built = RestorePipeline(**restore.OWN_PARTS, restorer=toy(name), **parts)
    built.set_progress_bar_config(disable=True)
    return built


@pytest.fixture(autouse=True)
def _two_faces(monkeypatch):
    monkeypatch.setattr(restore, "FaceFinder", tiny.TwoFaces)


def test_the_known_names_are_those_of_the_list():
    listed = [one.name for one in models.models().values() if one.task == "restore"]
    assert list(RestorePipeline.known_names) == listed


@pytest.mark.parametrize("name", TOYS)
def test_photos_guard_report_and_paste_back_are_the_same(name):
    pipe, photo = pipeline(name), tiny.photo()
    output = pipe(photo, output_type="pt", scale=1.5, identity_guard=None, region="face")
    assert output.images[0].shape == (3, 264, 384)
    assert [report.restored for report in output.reports[0]] == [True, True]
    untouched = pipe(photo, output_type="pt", scale=1.5, strength=0.0, region="face").images[0]
    changed = (output.images[0] - untouched).abs().amax(0) > 0
    assert changed[60:160, 60:200].any()
    assert not changed[:, -3:].any()
    held = pipe(photo, output_type="pt", identity_guard=1e-6)
    assert [report.reason for report in held.reports[0]] == ["identity guard: left as it was"] * 2
    assert torch.equal(held.images[0], photo)


def test_faces_are_cut_by_the_template_of_the_published_restorers():
    pipe, photo = pipeline(), restore.images.load(tiny.photo())
    found = pipe.find(photo)
    _, to_photo = pipe.crop(photo, found)
    np.testing.assert_array_equal(to_photo, align.facexlib_transform(found.mesh, 512))
    assert np.abs(to_photo - found.crops(512)).max() > 0.5


@pytest.mark.parametrize("name", TOYS)
def test_fidelity_counts(name):
    pipe, photo = pipeline(name), tiny.photo()
    pictures = [pipe(photo, output_type="pt", fidelity=f, identity_guard=None).images[0] for f in (0.5, 1.0)]
    assert float((pictures[0] - pictures[1]).abs().max()) > 1e-3


def test_a_sepia_photo_keeps_its_tone_and_may_be_coloured():
    grey = luma(tiny.photo()[None])[0]
    sepia = torch.cat([0.9 * grey + 0.1, 0.85 * grey + 0.05, 0.7 * grey])
    kept, coloured = (
        pipeline()(sepia, output_type="pt", identity_guard=None, colorize=wanted).images[0] for wanted in (False, True)
    )
    tone = tone_curve(sepia)
    assert float((kept[None] - with_tone(kept[None], tone)).abs().max()) < 0.02
    assert float((coloured[None] - with_tone(coloured[None], tone)).abs().max()) > 0.05


def test_the_rest_of_the_photo_is_cleaned_but_a_head_is_not_known():
    pipe, photo = pipeline(), tiny.photo()
    report = pipe(photo, region="photo", identity_guard=None).reports[0][0]
    assert (report.region, report.invented) == ("photo", 1.0)
    with pytest.raises(InputError, match="a GFPGAN does not tell a head from what is behind it"):
        pipe(photo, region="head")


def test_a_reference_measures_but_does_not_lead():
    pipe = pipeline()
    with pytest.raises(InputError, match="a GFPGAN can't be led by a reference"):
        pipe(tiny.photo(), reference=tiny.photo(seed=1))
    report = pipe(tiny.photo(), reference=tiny.photo(seed=1), reference_steps=0).reports[0][0]
    assert report.reference_before is not None
    assert not report.guided


def test_saved_and_loaded_it_gives_the_same(tmp_path):
    pipe = pipeline()
    pipe.save_pretrained(tmp_path)
    loaded = RestorePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded.restorer, GFPGAN) and loaded.generator is None
    pictures = [one(tiny.photo(), output_type="pt", identity_guard=None).images[0] for one in (pipe, loaded)]
    assert torch.equal(*pictures)


def test_a_known_name_and_a_file(tmp_path, monkeypatch):
    """Through the store: a manifest entry, and a published file that lies somewhere."""
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    ours = tiny.restore_pipeline()
    own = {name: getattr(ours, part) for part, name in weights.FACE_NETWORKS.items()} | {"cleaner": ours.cleaner}
    asked = []

    def load(name):
        asked.append(name)
        return own.get(name) or toy("gfpgan")

    monkeypatch.setattr(weights, "load", load)
    assert isinstance(RestorePipeline.from_pretrained("gfpgan-1.4").restorer, GFPGAN)
    assert asked == ["gfpgan-1.4", "cleaner", *weights.FACE_NETWORKS.values()]
    family = test_torch.published.FAMILIES["gfpgan"]
    toys = {"widths": (8,) * 8, "latent_dim": 8, "mapping_depth": 1}
    monkeypatch.setitem(test_torch.published.FAMILIES, "gfpgan", type(family)(family.mark, GFPGAN, options=toys))
    torch.save({"params_ema": toy("gfpgan").state_dict()}, tmp_path / "mine.pth")
    loaded = RestorePipeline.from_pretrained(tmp_path / "mine.pth")
    wanted = toy("gfpgan").state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in loaded.restorer.state_dict().items())
    torch.save(test_torch.RRDBNet(**test_torch.TOY.options).state_dict(), tmp_path / "net.pth")
    monkeypatch.setitem(test_torch.published.FAMILIES, "realesrgan", test_torch.TOY)
    with pytest.raises(InputError, match="must be given a face restorer, got a RRDBNet"):
        RestorePipeline.from_pretrained(tmp_path / "net.pth")


def test_our_restorer_is_not_complete_alone():
    ours = tiny.restore_pipeline()
    with pytest.raises(InputError, match="generator, head, flow, parts beside it"):
        RestorePipeline(**{**ours.components, **restore.OWN_PARTS})
