"""FrontalizePipeline with toy networks: the contract, and what it promises about faces and pictures."""

import pytest
import torch

from pipelines import frontalize
from pipelines.frontalize import FrontalizePipeline, pose_aims
from studio import images
from studio.errors import ImageError, InputError, NoFaceError, StudioError
from studio.latents import identity_steps, inversion, likeness
from studio.tone import luma
from tests import tiny
from tests.contract import PipelineContract, Recorder, With
from tests.faces.synthetic import faces_of, head


@pytest.fixture(autouse=True)
def finder(request, monkeypatch):
    if "weights" not in request.keywords:  # the real networks are judged on what the real finder sees
        monkeypatch.setattr(frontalize, "FaceFinder", tiny.SureFinder)


def photo(width=80, seed=7):
    return tiny.image(72, width, seed=seed)


class FrontalizeConfig:
    # A search carries the last bits of a sum on from step to step.
    batch_tolerance = 1e-4

    def pipeline(self):
        return tiny.frontalize_pipeline()

    def inputs(self):
        return {"image": photo(), "num_inference_steps": 1, "refinement_steps": 1, "output_type": "pt"}

    def batch(self):
        return [photo(seed=1), photo(seed=2)]

    def variations(self):
        return {
            "image": photo(seed=3),
            "yaw": 12.0,
            "pitch": -20.0,
            "expression": "neutral",
            "background": With("generated"),
            "face": With(1, image=photo(160), face=0),
            "method": "search",
            "num_inference_steps": 4,
            "refinement_steps": 3,
            "size": 40,
            "callback_on_step_end": Recorder(),
            "callback_on_step_end_tensor_inputs": [["no_such_tensor"], "latents"],
            "output_type": ["pil", "np"],
        }

    def bad_inputs(self):
        return [
            ({"image": b"no image"}, ImageError, "image"),
            ({"image": torch.full((3, 16, 16), float("nan"))}, ImageError, "finite"),
            ({"image": torch.zeros(3, 3, 3)}, ImageError, "."),
            ({"image": torch.zeros(3, 4, 4)}, NoFaceError, "none was found"),
            ({"image": torch.zeros(3, 72, 80)}, NoFaceError, "none was found"),
            ({"image": photo(160)}, InputError, "shows 2.*face=0"),
            ({"image": photo(160), "face": 2}, InputError, "0 to 1.*got 2"),
            ({"face": -1}, InputError, "face"),
            ({"face": True}, InputError, "face"),
            ({"yaw": 46.0}, InputError, "yaw must be from -45 to 45"),
            ({"yaw": float("nan")}, InputError, "yaw"),
            ({"yaw": None}, InputError, "yaw"),
            ({"pitch": 21.0}, InputError, "pitch must be from -35 to 20"),
            ({"pitch": "up"}, InputError, "pitch"),
            ({"expression": "happy"}, InputError, "expression.*'neutral'"),
            ({"background": "beach"}, InputError, "background.*'generated'"),
            ({"method": "luck"}, InputError, "method.*'search'"),
            ({"method": "network", "num_inference_steps": -1}, InputError, "num_inference_steps.*0 or more"),
            ({"method": "search", "num_inference_steps": 0}, InputError, "num_inference_steps.*1 or more"),
            ({"refinement_steps": -1}, InputError, "refinement_steps"),
            ({"size": 65}, InputError, "16 to 64 px"),
            ({"size": 32.0}, InputError, "size"),
        ]


class TestFrontalize(FrontalizeConfig, PipelineContract):
    @pytest.fixture(autouse=True)
    def _near(self, monkeypatch):
        monkeypatch.setattr(frontalize, "CLOSE", 180.0)  # so that the photo's background is kept unless told otherwise
        # A mesh with random weights jumps, so that steps lead nowhere: for the searches the face stays in its place.
        mesh = torch.from_numpy(head((128, 140), 120.0)).float()
        for module in (identity_steps, inversion):
            monkeypatch.setattr(module, "trace_aligned", lambda finder, pictures: (mesh, torch.ones(1)))


def run(image, **arguments):
    settings = {"output_type": "pt", "num_inference_steps": 0, "refinement_steps": 1}
    return tiny.frontalize_pipeline()(image, **settings | arguments)


def test_a_small_face_is_refused(monkeypatch):
    monkeypatch.setattr(tiny.SureFinder, "__call__", lambda self, image: faces_of(head((40, 36), 10.0)))
    with pytest.raises(InputError, match=r"8 px between its eyes.*UpsamplePipeline"):
        run(photo())


def test_a_picture_that_is_no_face_any_more_is_an_error(monkeypatch):
    place = tiny.SureFinder.place

    def unsure(self, image, boxes, points):
        mesh, presence = place(self, image, boxes, points)
        return mesh, presence * 0

    monkeypatch.setattr(tiny.SureFinder, "place", unsure)
    with pytest.raises(StudioError, match="turn it less"):
        run(photo())


def test_the_background_is_the_photos_where_the_head_turns_little(monkeypatch):
    monkeypatch.setattr(frontalize, "CLOSE", 180.0)
    kept, made = (run(photo(), background=choice) for choice in ("keep", "generated"))
    assert (kept.reports[0].background, made.reports[0].background) == ("photo", "generated")
    crop = images.resize(kept.crops[0], 64, 64)
    for corner in (kept.images[0], crop)[:1]:
        assert (corner[:, :2, :2] - crop[:, :2, :2]).abs().max() < 0.05
    assert torch.allclose(kept.images[0][:, 36, 32], made.images[0][:, 36, 32], atol=1e-5)  # the middle of the face
    monkeypatch.setattr(frontalize, "CLOSE", 0.0)
    assert run(photo()).reports[0].background == "generated"


def test_the_report_measures_the_returned_latents():
    built = tiny.frontalize_pipeline()
    output = built(photo(), output_type="pt", num_inference_steps=0, refinement_steps=1, background="generated")
    report = output.reports[0]
    with torch.no_grad():
        values, vector = built.look(built.exact(output.latents[0], None))
        subject = built.subject(images.load(photo()))
        picture, _ = built.picture(subject, output.latents[0], 64, "generated")
    assert report.pose_after == pytest.approx(values[:2].tolist(), abs=0.02)
    assert report.identity_distance == pytest.approx(float((vector - subject.person).norm()), abs=1e-4)
    assert report.same_person == (report.identity_distance < 0.6)
    assert torch.allclose(picture, output.images[0], atol=1e-5)
    assert report.faces_found == 1
    assert set(report.to_dict()) >= {"pose_before", "pose_after", "likeness_distance", "note"}


def test_without_steps_it_is_the_front_that_the_network_predicts():
    built, seen = tiny.frontalize_pipeline(), []
    subject = built.subject(images.load(photo()))
    with torch.no_grad():
        front = built.front(subject)
    assert front.shape == (1, 8, 8)
    assert torch.equal(front[:, :7], front[:, :1].expand(-1, 7, -1))  # structure, and behind it the texture
    assert not torch.equal(front[:, 6], front[:, 7])
    output = built(
        photo(), num_inference_steps=0, refinement_steps=0, callback_on_step_end=lambda *given: seen.append(given)
    )
    assert (seen, output.reports[0].method, output.reports[0].search_steps) == ([], "network", 0)
    assert output.reports[0].expression_before == built.expression(subject.seen)


@pytest.mark.parametrize("method", ["network", "search"])
def test_the_search_starts_from_the_networks_front_or_from_a_regression(monkeypatch, method):
    started, turned = [], []
    for module in (frontalize, likeness):
        monkeypatch.setattr(
            module, "move_to", lambda space, w, aims, measure, *given: (turned.append((w, aims)), (w, measure(w)))[1]
        )
    monkeypatch.setattr(
        likeness, "invert", lambda draw, crop, start, *given, **named: (started.append(start), start + 1)[1]
    )
    built = tiny.frontalize_pipeline()
    subject = built.subject(images.load(photo()))
    with torch.no_grad():
        front = built.front(subject)
    report = built(photo(), method=method, refinement_steps=0).reports[0]
    assert report.search_steps == {"network": 20, "search": 40}[method]
    assert torch.equal(started[0], front) == (method == "network")
    for name in ("yaw", "pitch", "smile", "mouth"):  # first to the pose that the photo has, then to the one asked for
        assert turned[0][1][name] == pytest.approx(float(subject.seen[built.space.number(name)]))
    assert torch.equal(turned[1][0], started[0] + 1)
    assert turned[1][1]["yaw"] == 0


def test_no_likeness_of_a_side_is_searched_for(monkeypatch):
    monkeypatch.setattr(frontalize, "SIDE", -1.0)  # a toy head looks straight
    monkeypatch.setattr(FrontalizePipeline, "likeness", lambda self, subject, steps, on_step, start: 1 / 0)
    output = run(photo(), num_inference_steps=5)
    assert output.reports[0].search_steps == 0
    with pytest.raises(ZeroDivisionError):
        run(photo(), num_inference_steps=5, method="search")


def test_what_is_kept_is_the_photos_own(monkeypatch):
    asked = []
    monkeypatch.setattr(
        frontalize, "move_to", lambda space, w, aims, measure, *given: (asked.append(aims), (w, measure(w)))[1]
    )
    built = tiny.frontalize_pipeline()
    built(photo(), yaw=10.0, num_inference_steps=0, refinement_steps=1)
    seen = built.subject(images.load(photo())).seen
    assert asked[0]["yaw"] == 10.0
    for name in ("pitch", "smile", "mouth"):
        assert asked[0][name] == pytest.approx(float(seen[built.space.number(name)]))


def test_grey_stays_grey():
    grey = luma(photo()[None])[0].expand(3, -1, -1).contiguous()
    for background in ("keep", "generated"):
        red, green, blue = run(grey, background=background).images[0]
        assert torch.allclose(red, green, atol=1e-6)
        assert torch.allclose(green, blue, atol=1e-6)


def test_a_pitch_that_is_not_asked_for_is_kept():
    before = torch.tensor([30.0, -9.0, 0, 0, 0, 0, 0])
    assert pose_aims(5, None, before) == {"yaw": 5.0, "pitch": -9.0}
    assert pose_aims(5, 3, before) == {"yaw": 5.0, "pitch": 3.0}


def test_neutral_is_below_the_average_smile():
    built = tiny.frontalize_pipeline()
    built.space.attribute_mean.copy_(torch.arange(float(len(built.space.attribute_mean))))
    built.space.attribute_spread.fill_(0.5)
    aims = built.expression_aims("neutral", torch.zeros(7))
    assert aims == {"smile": 1.5, "mouth": 2.5}
    assert built.expression_aims("keep", torch.arange(7.0) / 10) == pytest.approx({"smile": 0.2, "mouth": 0.3})


def test_steps_are_counted_and_what_the_callback_raises_ends_the_call():
    seen = []
    built = tiny.frontalize_pipeline()
    built(
        photo(),
        method="search",
        num_inference_steps=3,
        refinement_steps=2,
        callback_on_step_end=lambda pipeline, step, _, given: seen.append((step, tuple(given["latents"].shape))),
    )
    assert seen == [(step, (1, 8, 8)) for step in range(5)]

    def stop(*given):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(photo(), callback_on_step_end=stop)


def test_runs_in_inference_mode():
    built = tiny.frontalize_pipeline()
    grey = luma(photo()[None])[0].expand(3, -1, -1).contiguous()
    with torch.inference_mode():
        for settings in ({"num_inference_steps": 0}, {"method": "search", "num_inference_steps": 1}):
            output = built([photo(), grey], refinement_steps=1, output_type="pt", **settings)
            assert output.images[0].shape == output.images[1].shape == (3, 64, 64)


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"num_inference_steps": 0}, {"num_inference_steps": 8}, {"method": "search", "num_inference_steps": 15}],
)
def test_a_generated_person_is_turned(repository, settings):
    built = FrontalizePipeline.from_pretrained("frontalize")
    built.set_progress_bar_config(disable=True)
    photo = repository / "examples" / "portrait.jpg"
    report = built(photo, face=0, yaw=20.0, refinement_steps=8, **settings).reports[0]
    assert report.pose_after[0] == pytest.approx(20, abs=5)
    assert abs(report.pose_after[1] - report.pose_before[1]) < 10
    assert report.same_person
