"""UpsamplePipeline with toy networks: the contract, and what it promises about small faces."""

import functools

import numpy as np
import pytest
import torch

from pipelines import upsample
from pipelines.upsample import NOTE, UpsamplePipeline
from studio import images
from studio.errors import ImageError, InputError, NoFaceError
from studio.latents import prior, search
from studio.latents.consistency import downscale_error
from studio.tone import luma, tone_curve
from tests import tiny
from tests.contract import PipelineContract, Recorder, With
from tests.faces.synthetic import faces_of, head


@pytest.fixture(autouse=True)
def finder(request, monkeypatch):
    if "weights" not in request.keywords:  # the real networks are judged on what the real finder sees
        monkeypatch.setattr(upsample, "FaceFinder", tiny.SureFinder)


def small(side=12, seed=0):
    return 0.3 + 0.4 * tiny.image(side, side, seed=seed)


def photo(width=80, seed=7):
    return tiny.image(72, width, seed=seed)


class UpsampleConfig:
    # A batch of convolutions sums in another order than each alone, and steps of a search carry that on.
    batch_tolerance = 1e-4

    def pipeline(self):
        return tiny.upsample_pipeline()

    def inputs(self):
        return {
            "image": small(),
            "num_inference_steps": 4,
            "num_images_per_prompt": 2,
            "output_type": "pt",
            "generator": torch.Generator().manual_seed(0),
        }

    def batch(self):
        return [small(seed=1), small(16, seed=2)]

    def variations(self):
        return {
            "image": small(seed=3),
            "scale": [1, 5],
            "num_images_per_prompt": 3,
            "num_inference_steps": 9,
            "threshold": 0.5,
            "move_map": False,
            "consistent": False,
            "aligned": With(False, image=photo(72)),
            "reference": photo(),
            "generator": [torch.Generator().manual_seed(5), None],
            "callback_on_step_end": Recorder(),
            "callback_on_step_end_tensor_inputs": [["no_such_tensor"], "latents"],
            "latents": [torch.ones(2, 10, 8), torch.ones(2, 7)],
            "output_type": ["pil", "np"],
        }

    def bad_inputs(self):
        return [
            ({"image": b"no image"}, ImageError, "image"),
            ({"image": torch.full((3, 16, 16), float("nan"))}, ImageError, "finite"),
            ({"image": torch.zeros(3, 3, 3)}, ImageError, "."),
            ({"image": small(4)}, InputError, "8 to 128 px.*4 px"),
            ({"image": small(129)}, InputError, "restore larger ones"),
            ({"image": tiny.image(16, 20)}, InputError, "square.*aligned=False"),
            ({"image": torch.zeros(3, 72, 80), "aligned": False}, NoFaceError, "none was found"),
            ({"image": photo(160), "aligned": False}, InputError, "shows 2"),
            ({"scale": 0}, InputError, "scale"),
            ({"scale": 1.5}, InputError, "scale"),
            ({"scale": 11}, InputError, "128 px.*132"),
            ({"num_images_per_prompt": 0}, InputError, "num_images_per_prompt"),
            ({"num_images_per_prompt": 17}, InputError, "at most 16"),
            ({"num_images_per_prompt": True}, InputError, "num_images_per_prompt"),
            ({"num_inference_steps": 0}, InputError, "num_inference_steps"),
            ({"threshold": float("nan")}, InputError, "threshold"),
            ({"move_map": 1}, InputError, "move_map"),
            ({"consistent": 0.5}, InputError, "consistent"),
            ({"reference": torch.zeros(3, 72, 80)}, NoFaceError, "reference"),
            ({"reference": photo(160)}, InputError, "reference.*2"),
            ({"num_images_per_prompt": 13}, InputError, "at most 12"),
        ]


class TestUpsample(UpsampleConfig, PipelineContract):
    pass


def run(image, **arguments):
    return tiny.upsample_pipeline()(
        image, **{"output_type": "pt", "num_inference_steps": 3, "num_images_per_prompt": 2, **arguments}
    )


@pytest.mark.parametrize(("side", "scale", "expected"), [(8, None, 128), (11, 3, 33), (13, 1, 13), (32, 4, 128)])
def test_scale_is_exact(side, scale, expected):
    output = run(small(side), scale=scale)
    assert [picture.shape for picture in output.images[0]] == [(3, expected, expected)] * 2
    assert output.reports[0].scale == expected / side
    assert output.reports[0].size == side


def test_the_error_is_that_of_the_returned_picture():
    target = small(11)
    output = run(target, scale=4, threshold=0.03, num_inference_steps=1, num_images_per_prompt=6)
    errors = downscale_error(torch.stack(output.images[0]), target)
    of_drawn = downscale_error(tiny.upsample_pipeline().draw(output.latents[0], 44), target)
    assert [sample.drawn_error for sample in output.reports[0].samples] == pytest.approx(of_drawn.tolist(), rel=1e-4)
    assert [sample.found for sample in output.reports[0].samples] == (of_drawn <= 0.03).tolist()
    assert errors.max() < 0.1 * of_drawn.max()
    assert [sample.downscale_error for sample in output.reports[0].samples] == pytest.approx(errors.tolist(), rel=1e-5)
    assert [sample.converged for sample in output.reports[0].samples] == (errors <= 0.03).tolist()


@pytest.fixture
def _true_head(monkeypatch):
    """The head, whose toy weights are random, draws what the prior draws."""
    picture = prior.picture
    monkeypatch.setattr(prior, "picture", lambda net, w, head=None, added=None: picture(net, w, None, added))


@pytest.fixture
def _cheap_maps(monkeypatch):
    """A toy map of 8 channels has to move further than one of 512."""
    monkeypatch.setattr(search, "MapMove", functools.partial(search.MapMove, rate=1.0, weight=0.0))


@pytest.mark.usefixtures("_true_head")
def test_searching_brings_the_error_down():
    """The target is a face of the prior, so that it can be reached."""
    built = tiny.upsample_pipeline()
    with torch.no_grad():
        w = built.space.bank_latents[5:6]
        target = images.resize((built.generator(w)[0] / 2 + 0.5).clamp(0, 1), 16, 16)
    few, many = (
        built(target, consistent=False, output_type="pt", num_inference_steps=steps, num_images_per_prompt=3).reports[0]
        for steps in (1, 100)
    )
    before, after = ([sample.downscale_error for sample in report.samples] for report in (few, many))
    assert max(before) > 5e-3
    assert max(after) <= 2e-3
    assert all(sample.converged for sample in many.samples)


def test_grey_stays_exactly_grey():
    output = run(luma(small()[None])[0].expand(3, -1, -1).contiguous())
    for red, green, blue in output.images[0]:
        assert torch.equal(red, green)
        assert torch.equal(green, blue)
    assert not torch.equal(*run(small()).images[0][0][:2])


def test_sepia_stays_sepia():
    tint = torch.tensor([1.0, 0.85, 0.65]).view(3, 1, 1)
    picture = run((luma(small()[None])[0] * tint).clamp(0, 1)).images[0][0]
    inside = (picture > 0.02).all(0) & (picture < 0.98).all(0)
    y = luma(picture[None])[0]
    assert torch.allclose(
        (picture / y)[:, inside], (tint / luma(tint[None])[0]).expand(-1, 128, 128)[:, inside], atol=0.05
    )


def test_one_sample_has_no_pairs():
    report = run(small(), num_images_per_prompt=1).reports[0]
    assert report.mean_identity_distance is None
    assert report.identity_distances == [[0.0]]


def test_pairs_and_note():
    report = run(small(), num_images_per_prompt=3).reports[0]
    table = np.array(report.identity_distances)
    assert (table == table.T).all() and not table.diagonal().any()
    assert report.mean_identity_distance == pytest.approx(table.sum() / 6, abs=1e-3)
    assert report.to_dict()["note"] == NOTE


def test_distances_to_the_reference_are_reported():
    report = run(small(), reference=photo()).reports[0]
    assert all(0 < sample.reference_distance < 2 for sample in report.samples)
    assert all(sample.reference_distance is None for sample in run(small()).reports[0].samples)


def test_the_callback_can_hold_the_search_where_it_is():
    states = []

    def hold(pipeline, step, timestep, given):
        assert isinstance(pipeline, UpsamplePipeline)
        assert given["downscale_error"].shape == (2,)
        states.append(given["latents"].clone())
        return {"latents": states[0]}

    run(small(), callback_on_step_end=hold)
    free = []
    run(small(), callback_on_step_end=lambda pipeline, step, timestep, given: free.append(given["latents"].clone()))
    assert len(states) == len(free) == 3
    held, moved = ((after[2] - after[0]).norm() for after in (states, free))
    assert held < moved


@pytest.mark.usefixtures("_true_head", "_cheap_maps")
@pytest.mark.parametrize("picture", [small(), luma(small()[None])[0].expand(3, -1, -1)])
def test_latents_and_maps_give_the_pictures_again(picture):
    built = tiny.upsample_pipeline()
    output = built(picture, output_type="pt", num_inference_steps=12, num_images_per_prompt=2)
    assert output.maps[0].shape == (2, 8, 32, 32)
    assert output.maps[0].dtype == torch.float32
    tone = tone_curve(picture)
    with torch.no_grad():
        drawn = built.draw(output.latents[0], 128, tone, output.maps[0])
        without = built.draw(output.latents[0], 128, tone)
    assert torch.allclose(built.make_consistent(drawn, picture, tone), torch.stack(output.images[0]), atol=1e-5)
    assert downscale_error(drawn, picture).tolist() == pytest.approx(
        [sample.drawn_error for sample in output.reports[0].samples], rel=1e-4
    )
    assert (drawn - without).abs().max() > 1e-3


def test_latents_alone_on_request():
    """The map waits for the latents: three steps of two kinds begin with two that are the same."""
    output = run(small(), num_inference_steps=12, move_map=False)
    assert output.maps == [None]
    assert [sample.map_shift for sample in output.reports[0].samples] == [0, 0]
    errors = []
    for move_map in (True, False):
        errors.append([])
        run(
            small(),
            num_inference_steps=12,
            move_map=move_map,
            callback_on_step_end=lambda pipeline, step, _, given: errors[-1].append(given["downscale_error"]),
        )
    moved, alone = (torch.stack(each) for each in errors)  # (steps, K)
    assert torch.allclose(moved[:8], alone[:8])  # the shift of step 7, if there is one, shows in step 8
    assert (moved[8:] - alone[8:]).abs().min() > 0


@pytest.mark.usefixtures("_true_head", "_cheap_maps")
def test_a_moved_map_reaches_what_latents_do_not():
    drawn, alone = (run(small(), num_inference_steps=40, move_map=move_map).reports[0] for move_map in (True, False))
    for sample, other in zip(drawn.samples, alone.samples, strict=True):
        assert sample.drawn_error < 0.85 * other.drawn_error
        assert sample.map_shift > 0


def test_a_face_is_cut_out_of_a_photo_at_its_own_size():
    output = run(photo(), aligned=False)
    side = output.reports[0].size
    assert output.small[0].shape == (3, side, side)
    assert 8 <= side <= 128
    again = run(output.small[0])
    assert torch.equal(again.images[0][0], output.images[0][0])


def test_a_large_face_is_refused(monkeypatch):
    monkeypatch.setattr(tiny.SureFinder, "__call__", lambda self, image: faces_of(head((150, 150), 200.0)))
    with pytest.raises(InputError, match="RestorePipeline"):
        run(tiny.image(300, 300), aligned=False)


def test_progress_bar_counts_the_steps(monkeypatch):
    totals = []
    built = tiny.upsample_pipeline()
    bar = built.progress_bar
    monkeypatch.setattr(built, "progress_bar", lambda total: totals.append(total) or bar(total=total))
    built(small(), num_inference_steps=3, num_images_per_prompt=1)
    assert totals == [3]


def test_networks_learn_nothing():
    built = tiny.upsample_pipeline()
    built(small(), num_inference_steps=2, num_images_per_prompt=1)
    assert all(parameter.grad is None for part in (built.generator, built.identity) for parameter in part.parameters())


def test_runs_in_inference_mode_and_in_half_precision():
    plain = run(small()).reports[0].samples
    built = tiny.upsample_pipeline()
    with torch.inference_mode():
        inside = built(small(), num_inference_steps=2, num_images_per_prompt=2, reference=photo()).reports[0].samples
    assert len(inside) == 2
    built = tiny.upsample_pipeline().to(torch.bfloat16)
    rough = built(small(), output_type="pt", num_inference_steps=3, num_images_per_prompt=2).reports[0].samples
    for sample, other in zip(plain, rough, strict=True):
        assert sample.downscale_error == pytest.approx(other.downscale_error, rel=0.2)


@pytest.mark.weights
@pytest.mark.slow
def test_a_real_small_face_is_found_in_the_prior(repository):
    """With the committed prior: the map is moved, and only a little."""
    portrait = images.load(repository / "examples" / "portrait.jpg").pixels
    pipeline = UpsamplePipeline.from_pretrained("upsample")
    pipeline.set_progress_bar_config(disable=True)
    target = images.resize(portrait, 32, 32)
    sample = pipeline(target, num_images_per_prompt=1, output_type="pt").reports[0].samples[0]
    assert sample.found
    assert 0 < sample.map_shift < 0.2
