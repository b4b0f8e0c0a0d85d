"""GeneratePipeline with toy networks: the contract, consent, several photos, attributes and the correction."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler

from pipelines import generate
from pipelines.generate import SOLVERS, near_and_unlike, to_shell
from studio.errors import ImageError, InputError, NoFaceError
from studio.identity.similarity import find_outliers
from studio.latents.identity_steps import identity_steps
from studio.networks.latent_flow import TIMES
from studio.tone import luma
from tests import tiny
from tests.contract import PipelineContract, Recorder, With


class OneFinder(tiny.SureFinder):
    """`SureFinder` for faces with 24 px and more between the eyes."""


@pytest.fixture(autouse=True)
def finder(monkeypatch):
    monkeypatch.setattr(generate, "FaceFinder", OneFinder)


def photo(width=80, seed=7):
    return tiny.image(72, width, seed=seed)


def vector(seed=0):
    drawn = torch.randn(128, generator=torch.Generator().manual_seed(seed))
    return 1.5 * drawn / drawn.norm()


class GenerateConfig:
    batch_argument = None

    def pipeline(self):
        return tiny.generate_pipeline()

    def inputs(self):
        return {
            "identity": vector(),
            "consent": True,
            "num_inference_steps": 2,
            "num_images_per_prompt": 2,
            "correction_steps": 2,
            "candidates": 2,
            "output_type": "pt",
            "generator": torch.Generator().manual_seed(0),
        }

    def variations(self):
        return {
            "identity": [vector(1), photo(), [vector(), vector() + 0.02 * vector(1)], None],
            "consent": With(True, identity=None, consent=False),
            "face": With(1, identity=photo(160), face=0),
            "num_images_per_prompt": 3,
            "guidance_scale": [0.0, 4.0],
            "num_inference_steps": 5,
            "correction_steps": 0,
            "candidates": 3,
            "yaw": 20.0,
            "pitch": -10,
            "smile": 1.0,
            "mouth": 1.0,
            "eyes": -1.0,
            "brow": 1.0,
            "light": 1.0,
            "glasses": -1.0,
            "age": 60.0,
            "generator": [torch.Generator().manual_seed(5), None],
            "callback_on_step_end": Recorder(),
            "callback_on_step_end_tensor_inputs": [["no_such_tensor"], "latents"],
            "latents": [torch.ones(4, 8), torch.ones(2, 8)],
            "output_type": ["pil", "np"],
        }

    def bad_inputs(self):
        long = vector().clone()
        long[3] = float("nan")
        return [
            ({"consent": False}, InputError, "consent=True"),
            ({"consent": 1}, InputError, "consent must be True or False"),
            ({"identity": torch.zeros(3, 72, 80)}, NoFaceError, "none was found"),
            ({"identity": photo(160)}, InputError, "shows 2: pass face=0 for the largest"),
            ({"identity": photo(160), "face": 2}, InputError, "face must be from 0 to 1.*got 2"),
            ({"identity": b"no image"}, ImageError, "image"),
            ({"identity": torch.zeros(127)}, InputError, r"\(128,\), got \(127,\)"),
            ({"identity": np.zeros((1, 128), np.float32)}, InputError, r"got \(1, 128\)"),
            ({"identity": long}, InputError, "NaN"),
            ({"identity": 5 * vector()}, InputError, "got 7.50"),
            ({"identity": []}, InputError, "empty list"),
            ({"identity": [vector(), vector(1)]}, InputError, "one person.*embedding 2"),
            ({"num_images_per_prompt": 0}, InputError, "1 to 16"),
            ({"num_images_per_prompt": 17}, InputError, "1 to 16"),
            ({"num_images_per_prompt": True}, InputError, "num_images_per_prompt"),
            ({"num_inference_steps": 0}, InputError, "num_inference_steps"),
            ({"correction_steps": -1}, InputError, "correction_steps"),
            ({"candidates": 0}, InputError, "candidates must be a whole number from 1 to 16"),
            ({"candidates": 17}, InputError, "candidates"),
            ({"guidance_scale": float("nan")}, InputError, "guidance_scale"),
            ({"guidance_scale": 11}, InputError, "guidance_scale"),
            ({"face": -1}, InputError, "face must be"),
            ({"yaw": 90.0}, InputError, "yaw must be from -60 to 60"),
            ({"smile": float("nan")}, InputError, "smile"),
            ({"age": 20.0}, InputError, "age must be from 30 to 80 years, got 20"),
        ]


class TestGenerate(GenerateConfig, PipelineContract):
    pass


def run(identity=None, **arguments):
    settings = {
        "output_type": "pt",
        "num_inference_steps": 2,
        "num_images_per_prompt": 2,
        "correction_steps": 0,
        "consent": identity is not None,
        "generator": torch.Generator().manual_seed(0),
    }
    return tiny.generate_pipeline()(identity, **{**settings, **arguments})


def test_nobody_needs_no_consent_and_has_no_distance():
    output = run()
    assert output.identity is None
    assert output.report.references == []
    assert [sample.identity_distance for sample in output.report.samples] == [None, None]
    assert not output.report.consent
    assert [picture.shape for picture in output.images] == [(3, 64, 64)] * 2
    assert output.latents.shape == (2, 8, 8)


def test_the_distance_is_that_of_the_returned_picture():
    output = run(vector())
    pipeline = tiny.generate_pipeline()
    _, vectors, _ = pipeline.measure(torch.stack(output.images))
    expected = (vectors - vector()).norm(dim=1).tolist()
    assert [sample.identity_distance for sample in output.report.samples] == pytest.approx(expected, rel=1e-5)


def test_a_photo_is_the_vector_that_it_holds():
    first = run(photo())
    second = tiny.generate_pipeline().person(photo())[0]
    assert torch.equal(first.identity, second)
    assert first.report.references[0].eye_distance > 12
    assert not first.report.references[0].monochrome


def test_a_print_is_named_as_one():
    grey = luma(photo()[None])[0].expand(3, -1, -1)
    _, references = tiny.generate_pipeline().person(grey)
    assert references[0].monochrome
    assert not tiny.generate_pipeline().person(vector())[1][0].monochrome


def test_several_vectors_are_averaged_on_the_sphere():
    near = [vector(), vector() + 0.1 * vector(1), vector() + 0.1 * vector(2)]
    middle, references = tiny.generate_pipeline().person(near)
    directions = torch.stack([one / one.norm() for one in near]).mean(0)
    assert torch.allclose(middle / middle.norm(), directions / directions.norm(), atol=1e-6)
    assert not any(reference.outlier for reference in references)


def test_a_photo_of_somebody_else_is_named_and_left_out():
    near = [vector(), vector() + 0.1 * vector(1)]
    middle, references = tiny.generate_pipeline().person([*near, vector(5)])
    assert [reference.outlier for reference in references] == [False, False, True]
    assert references[2].name == "embedding 3"
    assert references[2].distance > 0.6
    assert torch.equal(middle, tiny.generate_pipeline().person(near)[0])


def test_half_of_the_photos_of_somebody_else_is_nobody():
    with pytest.raises(InputError, match=r"b lie 0\.6 or more away from a"):
        find_outliers(torch.stack([vector(), vector(1)]), ["a", "b"])


def test_the_other_solver():
    """Of the flow alone: the reader takes its steps once in each of the solver's, whatever their number."""
    pipeline = tiny.generate_pipeline()
    pipeline.lead = lambda x, velocity, *_: velocity
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    euler = pipeline.sample(noise, vector(), 2.0, 200)
    pipeline.scheduler = FlowMatchHeunDiscreteScheduler.from_config(pipeline.scheduler.config)
    heun, few = (pipeline.sample(noise, vector(), 2.0, steps) for steps in (100, 2))
    assert (euler - heun).norm() < 0.2 * (few - heun).norm()


def test_the_other_solver_is_led_as_far():
    """Heun's second evaluation, at a smaller time, must not divide the same shift by it."""
    pipeline, noise = tiny.generate_pipeline(), torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    ways = []
    for solver in SOLVERS.values():
        pipeline.scheduler = solver.from_config(pipeline.scheduler.config)
        ends = []
        for shift in (0.0, 0.05):
            pipeline.lead = lambda x, velocity, timestep, *_, shift=shift: velocity - shift * TIMES / timestep
            ends.append(pipeline.sample(noise, vector(), 1.0, 4))
        ways.append((ends[1] - ends[0]).norm())
    assert float(ways[1]) == pytest.approx(float(ways[0]), rel=0.2)


def test_the_report_says_how_many_candidates_there_were():
    assert run(vector(), candidates=3).report.candidates == 3
    assert run(candidates=3).report.candidates == 1  # of nobody


def test_chosen_are_near_and_unlike():
    places = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    apart = torch.cdist(places, places)
    distance = torch.tensor([0.40, 0.42, 0.70, 0.50])
    assert near_and_unlike(distance, apart, 1) == [0]
    assert near_and_unlike(distance, apart, 2) == [0, 3]  # 0.08 further than the second nearest, and unlike the first
    assert near_and_unlike(distance, torch.zeros(4, 4), 3) == [0, 1, 3]
    assert sorted(near_and_unlike(distance, apart, 4)) == [0, 1, 2, 3]


def test_the_nearest_that_the_mesh_sees_is_chosen(monkeypatch):
    pipeline = tiny.generate_pipeline()
    w = pipeline.latents(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)))
    values, vectors, _ = pipeline.measure(pipeline.quick(w))
    nearest = pipeline.choose(w, vectors[2], 1)
    assert torch.equal(nearest, w[2:3])
    unseen = values, vectors, np.array([True, True, False, True])
    monkeypatch.setattr(pipeline, "measure", lambda pictures: unseen)
    assert not torch.equal(pipeline.choose(w, vectors[2], 1), w[2:3])


def test_samples_are_led_to_what_the_reader_takes_for_the_person():
    pipeline = tiny.generate_pipeline()
    noise = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    wanted = pipeline.read(torch.randn(1, 8, generator=torch.Generator().manual_seed(3)))[0].detach()
    with torch.no_grad():
        led = (pipeline.read(pipeline.sample(noise, wanted, 1.0, 4)) - wanted).norm(dim=1)
        pipeline.lead = lambda x, velocity, *_: velocity
        free = (pipeline.read(pipeline.sample(noise, wanted, 1.0, 4)) - wanted).norm(dim=1)
    assert led.mean() < 0.8 * free.mean()


def test_the_correction_comes_nearer_and_says_from_where():
    pipeline = tiny.generate_pipeline()
    pipeline.draw = pipeline.quick  # the toy's head was never trained to draw what its generator does
    person = pipeline.measure(pipeline.quick(pipeline.generator.slots(pipeline.space.bank_latents[:1].float())))[1][0]
    w = pipeline.latents(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)))
    moved = pipeline.correct(w, person, {}, 15)
    assert (moved.after <= moved.before).all()
    assert moved.after.mean() < 0.9 * moved.before.mean()
    assert pipeline.correct(w, None, {}, 15) is None
    assert pipeline.correct(w, person, {}, 0) is None


def test_asking_for_a_pose_reaches_the_correction(monkeypatch):
    poses = []

    def watched(*given, **named):
        poses.append(named["pose"])
        return identity_steps(*given, **named)

    monkeypatch.setattr(generate, "identity_steps", watched)
    run(vector(), correction_steps=1, yaw=25.0)
    assert poses[0][:, 0].tolist() == [25.0, 25.0]


def test_a_callback_may_replace_latents():
    fixed = torch.zeros(2, 8)
    output = run(callback_on_step_end=lambda pipe, step, timestep, given: {"latents": fixed})
    assert torch.equal(output.latents[0], output.latents[1])


def test_samples_far_outside_come_back_to_the_shell():
    near, far = torch.full((1, 4), 0.5), torch.full((1, 4), 3.0)
    moved = to_shell(torch.cat([near, far]))
    assert torch.equal(moved[0], near[0])
    assert float(moved[1].norm()) == pytest.approx(2.0 * generate.SHELL)


def test_steering_moves_the_measured_attribute():
    """With directions of a real effect: here the toy's own regression of yaw on its latents."""
    pipeline = tiny.generate_pipeline()
    noise = torch.randn(60, 8, generator=torch.Generator().manual_seed(3))
    w = pipeline.latents(noise)
    yaw = pipeline.measure(pipeline.quick(w))[0][:, 0]
    flat = w[:, 0] - w[:, 0].mean(0)
    pipeline.space.directions[0] = (yaw - yaw.mean()) @ flat / len(w) / yaw.var()
    before = yaw[:8]
    aim = float(yaw.median())
    after = pipeline.measure(pipeline.quick(pipeline.steer(w[:8], {"yaw": aim})))[0][:, 0]
    assert (after - aim).abs().mean() < (before - aim).abs().mean()
