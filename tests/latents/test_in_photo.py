"""A face of a photograph as the prior reads it: where it changes, and where it stays."""

import pytest
import torch

from pipelines import edit
from pipelines.edit import SIDES
from studio.latents.in_photo import FaceInPhoto, rows
from studio.tone import luma
from tests import tiny

CROP = SIDES["photo"]


@pytest.fixture(scope="module")
def pipeline():
    return tiny.edit_pipeline()


@pytest.fixture(scope="module")
def sitter(pipeline):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edit, "FaceFinder", tiny.SureFinder)
        return pipeline.prepare(tiny.image(72, 80, seed=7), num_inference_steps=1)


def test_the_same_latents_give_the_photograph_back(sitter):
    face, kept = sitter.inside.moved(sitter.inside.w)
    assert torch.allclose(face[0], sitter.portrait.crop, atol=1e-5)
    assert torch.equal(kept, torch.ones_like(kept))


def test_a_smile_is_let_into_the_lower_half_alone(sitter):
    w = sitter.inside.w + 0.5
    near = {name: sitter.inside.moved(w, [name])[1] for name in ("smile", "eyes", "age")}
    upper, lower = (slice(0, CROP // 3), slice(2 * CROP // 3, 7 * CROP // 8))
    assert near["smile"][..., upper, :].min() == 1 > near["smile"][..., lower, :].min()
    assert near["eyes"][..., 3 * CROP // 4 :, :].min() == 1 > near["eyes"].min()
    assert near["age"][..., upper, :].min() < 1 and near["age"][..., lower, :].min() < 1


def test_several_changes_take_the_rows_of_all():
    smile, eyes, both = rows(["smile"], 32), rows(["eyes"], 32), rows(["smile", "eyes"], 32)
    assert torch.equal(both, torch.maximum(smile, eyes))
    assert torch.equal(rows([], 32), torch.ones(1, 1, 32, 1))
    assert torch.equal(rows(["smile", "light"], 32), torch.ones(1, 1, 32, 1))
    assert smile[0, 0, 0, 0] == 0 < smile[0, 0, 24, 0] == 1


def test_a_sepia_face_on_a_coloured_card_stays_sepia(pipeline, sitter):
    sepia = luma(sitter.portrait.crop[None]) * torch.tensor([1.0, 0.85, 0.65]).view(3, 1, 1)
    mask = torch.ones(1, 1, CROP, CROP)
    parts = pipeline.generator, pipeline.head, pipeline.restorer
    face, kept = FaceInPhoto(*parts, sepia, mask, sitter.inside.w, None).moved(sitter.inside.w + 0.5)
    assert kept.min() < 0.9 and (face - sepia).abs().max() > 0.02
    wanted = luma(face) * sepia / luma(sepia)
    changed, plain = (kept < 0.5).expand_as(face), (face - wanted).abs()
    assert plain[changed].mean() < 0.02
