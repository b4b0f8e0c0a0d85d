"""EditPipeline with toy networks: the contract, what changes in a photo, what a likeness is, and what is refused."""

import pytest
import torch

from pipelines import edit
from pipelines.edit import SIDES, EditPipeline, method_of
from studio import images
from studio.errors import ImageError, InputError, NoFaceError, StudioError
from studio.latents.prior import SEARCHED
from tests import tiny
from tests.contract import PipelineContract, Recorder, With
from tests.faces.synthetic import faces_of, head

CHANGED = {"smile": 4.0, "mouth": 4.0}


@pytest.fixture(autouse=True)
def finder(request, monkeypatch):
    if "weights" not in request.keywords:  # the real networks are judged on what the real finder sees
        monkeypatch.setattr(edit, "FaceFinder", tiny.SureFinder)


def photo(width=80, seed=7):
    return tiny.image(72, width, seed=seed)


def drawn(seed):
    return torch.Generator().manual_seed(seed)


class EditConfig:
    # What a prepared face holds beside the values that are compared.
    volatile = ("inside",)
    # A search carries the last bits of a sum on from step to step.
    batch_tolerance = 1e-4

    def pipeline(self):
        return tiny.edit_pipeline()

    def inputs(self):
        # The likeness of this one is the person, to the toy encoder, after a single step.
        return {"image": photo(seed=3), "smile": 2.0, "num_inference_steps": 1, "output_type": "pt"}

    def batch(self):
        return [photo(seed=1), photo(seed=2)]

    def variations(self):
        nobody = {"image": None, "num_inference_steps": None}
        return {
            "image": photo(seed=7),
            "method": ["likeness", With("photo", method="likeness")],
            "face": With(1, image=photo(160), face=0),
            "yaw": 1.0,
            "pitch": -8.0,
            "smile": -2.0,
            "mouth": 2.0,
            "eyes": 2.0,
            "brow": 2.0,
            "light": 2.0,
            "glasses": 2.0,
            "age": 60.0,
            "num_inference_steps": 12,
            "generator": [drawn(1), With(drawn(1), **nobody, generator=drawn(2))],
            "latents": With(torch.full((1, 12, 8), 0.5), num_inference_steps=None),
            "callback_on_step_end": Recorder(),
            "callback_on_step_end_tensor_inputs": [["no_such_tensor"], "latents"],
            "output_type": ["pil", "np"],
        }

    def bad_inputs(self):
        nobody = {"image": None, "num_inference_steps": None}
        return [
            ({"image": b"no image"}, ImageError, "image"),
            ({"image": torch.full((3, 16, 16), float("nan"))}, ImageError, "finite"),
            ({"image": torch.zeros(3, 72, 80)}, NoFaceError, "none was found"),
            ({"image": torch.zeros(3, 72, 80), "method": "likeness"}, NoFaceError, "none was found"),
            ({"image": photo(160)}, InputError, "shows 2: pass face 0"),
            ({"image": photo(160), "method": "likeness"}, InputError, "shows 2: pass face 0"),
            ({"image": photo(160), "face": 2}, InputError, "0 to 1.*got 2"),
            ({"face": -1}, InputError, "face must be from 0 to 0"),
            ({"method": "luck"}, InputError, "method.*'likeness'"),
            ({"smile": None}, InputError, "a change is needed"),
            ({"smile": "wide"}, InputError, "smile must be a number"),
            ({"smile": True}, InputError, "smile must be a number"),
            ({"smile": 9.0}, InputError, "smile must be from -4 to 4"),
            ({"smile": float("nan")}, InputError, "smile must be from"),
            ({"age": 10.0}, InputError, "age must be from 30 to 80"),
            ({"yaw": 61.0}, InputError, "yaw must be from -60 to 60"),
            ({"yaw": 5.0, "method": "photo"}, InputError, "yaw can't be changed in the photograph itself"),
            ({"num_inference_steps": 0}, InputError, "num_inference_steps.*1 or more"),
            ({"num_inference_steps": 1.0}, InputError, "num_inference_steps.*whole"),
            ({"generator": drawn(1)}, InputError, "generator means nothing beside a photo"),
            ({"latents": torch.zeros(1, 12, 8)}, InputError, "num_inference_steps means nothing beside latents"),
            ({"latents": torch.zeros(2, 12, 8), "num_inference_steps": None}, InputError, r"\(1, 12, 8\)"),
            ({**nobody, "latents": [1.0]}, InputError, "got list"),
            (
                {"image": self.batch(), "latents": torch.zeros(1, 12, 8)},
                InputError,
                "latents must be given with one face",
            ),
            (nobody, InputError, "must say whose face"),
            ({**nobody, "generator": drawn(1), "method": "photo"}, InputError, "'photo' needs a photo"),
            ({**nobody, "generator": drawn(1), "face": 0}, InputError, "face means nothing beside a generated person"),
        ]


class TestEdit(EditConfig, PipelineContract):
    pass


@pytest.fixture(scope="module")
def pipeline():
    return tiny.edit_pipeline()


@pytest.fixture(scope="module")
def sitter(pipeline):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edit, "FaceFinder", tiny.SureFinder)
        return pipeline.prepare(photo(), num_inference_steps=1)


# ---- in the photo


def test_only_the_face_of_the_photograph_changes(pipeline, sitter):
    output = pipeline(sitter, **CHANGED, output_type="pt")
    moved = (output.images[0] - photo()).abs().amax(0)
    assert moved.max() > 0.002
    assert (moved[:4, :4] == 0).all() and (moved[-4:, -4:] == 0).all(), "the corners are no face"
    assert output.faces[0].shape == (3, SIDES["photo"], SIDES["photo"])
    report = output.reports[0]
    assert report.asked == CHANGED
    assert report.identity_distance == report.edit_distance > 0
    assert report.same_person == (report.identity_distance < 0.6)
    assert (report.method, report.face, report.faces_found) == ("photo", 0, 1)
    assert report.to_dict()["note"] == "synthetic: the face of a photo, changed by a prior of faces"


def test_prepared_once_it_is_changed_as_often_as_one_likes(pipeline, sitter):
    first = pipeline(sitter, smile=2, output_type="pt").images[0]
    pipeline(sitter, glasses=-2)
    assert torch.equal(pipeline(sitter, smile=2, output_type="pt").images[0], first)
    at_once = pipeline(photo(), smile=2, num_inference_steps=1, output_type="pt")
    assert torch.equal(at_once.images[0], first)
    again = pipeline([*at_once.prepared, sitter], smile=2, output_type="pt")
    assert all(torch.equal(picture, first) for picture in again.images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"face": 0}, "face means nothing beside a face that is prepared"),
        ({"num_inference_steps": 3}, "num_inference_steps means nothing"),
        ({"method": "likeness"}, "method must be the one that the face was prepared with, 'photo'"),
        ({"yaw": 5.0}, "yaw can't be changed"),
        ({"generator": drawn(1)}, "generator means nothing"),
    ],
)
def test_what_means_nothing_beside_a_prepared_face_is_refused(pipeline, sitter, given, message):
    with pytest.raises(InputError, match=message):
        pipeline(sitter, **{"smile": 1.0, **given})


def test_a_likeness_that_is_known_is_not_searched_for(pipeline, sitter):
    steps = []
    each = lambda _, step, *rest: steps.append(step)  # noqa: E731
    again = pipeline.prepare(photo(), latents=sitter.w, callback_on_step_end=each)
    assert steps == []
    assert torch.equal(pipeline.edit(again, CHANGED).face, pipeline.edit(sitter, CHANGED).face)
    pipeline.prepare(photo(), num_inference_steps=2, callback_on_step_end=each)
    assert steps == [0, 1]


def test_a_grey_photograph_stays_grey(pipeline):
    grey = photo().mean(0, keepdim=True).repeat(3, 1, 1)
    output = pipeline(grey, **CHANGED, num_inference_steps=1, output_type="pt")
    for picture in (output.faces[0], output.images[0]):
        assert (picture - picture[:1]).abs().max() < 1e-3
    assert (output.images[0] - grey).abs().max() > 0.001


def test_what_the_photo_has_beside_its_pixels_is_kept(pipeline):
    alpha = torch.linspace(0, 1, 80).expand(1, 72, 80).contiguous()
    edited = pipeline(images.Photo(photo(), alpha=alpha, bits=16), **CHANGED, num_inference_steps=1).photos[0]
    assert torch.equal(edited.alpha, alpha) and edited.bits == 16


def test_a_face_of_a_few_pixels_is_refused(pipeline, monkeypatch):
    monkeypatch.setattr(tiny.SureFinder, "__call__", lambda self, image: faces_of(head((40, 36), 10.0)))
    for method in SIDES:
        with pytest.raises(InputError, match=r"8 px between its eyes to be edited.*upsample it first"):
            pipeline.prepare(photo(), method)


def test_a_picture_that_is_no_face_any_more_is_an_error(pipeline, sitter, monkeypatch):
    place = tiny.SureFinder.place

    def unsure(self, image, boxes, points):
        mesh, presence = place(self, image, boxes, points)
        return mesh, presence * 0

    monkeypatch.setattr(tiny.SureFinder, "place", unsure)
    with pytest.raises(StudioError, match="must stay a face"):
        pipeline(sitter, smile=1)


# ---- a likeness


def test_where_the_head_turns_it_is_a_likeness():
    assert method_of("a.jpg", "auto", {"smile": 1.0}) == "photo"
    assert method_of("a.jpg", "auto", {"smile": 1.0, "pitch": 0.0}) == "likeness"
    assert method_of("a.jpg", "likeness", {"smile": 1.0}) == method_of(None, "auto", {}) == "likeness"


def test_the_likeness_of_a_photo(pipeline):
    seen = []
    output = pipeline(
        photo(160, seed=3),
        face=1,
        yaw=2.0,
        age=60.0,
        num_inference_steps=2,
        output_type="pt",
        callback_on_step_end=lambda _, step, __, given: seen.append((step, tuple(given["latents"].shape))),
    )
    assert seen == [(0, (1, 12, 8)), (1, (1, 12, 8))]
    report, sitter = output.reports[0], output.prepared[0]
    assert (report.method, report.face, report.faces_found) == ("likeness", 1, 2)
    assert sitter.portrait.crop.shape == (3, SEARCHED, SEARCHED)
    assert torch.equal(output.images[0], pipeline.draw(output.latents[0])[0])
    values, vector = pipeline.look(output.latents[0])
    assert report.after["yaw"] == pytest.approx(float(values[0]), abs=0.01)
    assert report.edit_distance == pytest.approx(float((vector - sitter.vector).norm()), abs=1e-5)
    assert report.identity_distance == pytest.approx(float((vector - sitter.portrait.person).norm()), abs=1e-5)
    assert report.likeness_distance == pytest.approx(float((sitter.vector - sitter.portrait.person).norm()), abs=1e-5)


def test_a_search_for_a_likeness_goes_on_from_what_the_callback_gives(pipeline):
    seen = []

    def halve(_, step, __, given):
        seen.append(given["latents"].clone())
        return {"latents": 0.5 * given["latents"]} if step == 0 else None

    pipeline.prepare(photo(seed=3), "likeness", num_inference_steps=2, callback_on_step_end=halve)
    left_alone = pipeline.prepare(photo(seed=3), "likeness", num_inference_steps=2)
    first, second = seen
    assert (second - 0.5 * first).norm() < (second - first).norm()
    assert torch.equal(pipeline.prepare(photo(seed=3), "likeness", num_inference_steps=2).w, left_alone.w)


def test_a_generator_for_each_person(pipeline):
    both = pipeline([None, None], age=60.0, generator=[drawn(3), drawn(4)], output_type="pt")
    for picture, seed in zip(both.images, (3, 4), strict=True):
        assert torch.equal(picture, pipeline(age=60.0, generator=drawn(seed), output_type="pt").images[0])
    with pytest.raises(InputError, match="one for each face, got 1 for 2"):
        pipeline([None, None], age=60.0, generator=[drawn(3)])


def test_no_pictures_at_all_are_refused(pipeline):
    with pytest.raises(ImageError, match="at least one"):
        pipeline([], smile=1.0)


def test_a_likeness_that_is_somebody_else_is_refused(pipeline, monkeypatch):
    monkeypatch.setattr(edit, "SAME_PERSON", 1e-6)
    with pytest.raises(InputError, match="must hold a likeness"):
        pipeline(photo(), smile=1, method="likeness", num_inference_steps=2)


def test_a_generated_person(pipeline):
    one, same, other = (pipeline(age=60.0, generator=drawn(seed), output_type="pt") for seed in (3, 3, 4))
    assert torch.equal(one.images[0], same.images[0]) and not torch.equal(one.images[0], other.images[0])
    report = one.reports[0]
    assert report.method == "likeness"
    nothing = (report.likeness_distance, report.identity_distance, report.same_person, report.face)
    assert nothing == (None, None, None, None) and report.edit_distance > 0
    further = pipeline(latents=one.latents[0], yaw=1.0)
    assert further.reports[0].before["age"] == pytest.approx(report.after["age"], abs=0.01)


# ---- the real weights


@pytest.fixture(scope="module")
def real():
    return EditPipeline.from_pretrained("edit")


@pytest.mark.weights
def test_real_glasses_are_taken_off_a_generated_face(real):
    drawn_face = real.draw(real.person(drawn(12)))
    face = images.resize(drawn_face, SIDES["photo"], SIDES["photo"])[0]
    sitter = real.prepare(face)
    output = real(sitter, glasses=-1.5, output_type="pt")
    report = output.reports[0]
    assert report.after["glasses"] < report.before["glasses"] - 0.7
    assert report.identity_distance < 0.6
    read = images.resize(sitter.portrait.crop - sitter.inside.lacking, SEARCHED, SEARCHED).clamp(0, 1)
    assert (real.measured(read)[1] - sitter.vector).norm() < 0.25, "the restorer reads the person"
    changed = (output.images[0] - face).abs().amax(0)
    assert changed[:40].max() < 0.02 and changed.max() > 0.2


@pytest.mark.weights
def test_ageing(real):
    person = real.prepare(generator=drawn(12))
    old, young = (real(person, age=years).reports[0] for years in (65.0, 36.0))
    assert old.after["age"] == pytest.approx(65, abs=3)
    assert young.after["age"] == pytest.approx(36, abs=3)
    assert young.after["age"] < old.before["age"] < old.after["age"]
    assert max(old.edit_distance, young.edit_distance) < 0.55
    assert abs(old.after["yaw"] - old.before["yaw"]) < 5


@pytest.mark.weights
def test_turning_and_smiling(real):
    turned = real(generator=drawn(8), yaw=20.0)
    report = turned.reports[0]
    assert report.after["yaw"] == pytest.approx(20, abs=5)
    assert report.edit_distance < 0.6
    back = real(latents=turned.latents[0], yaw=0.0, smile=1.0)
    report = back.reports[0]
    assert abs(report.after["yaw"]) < 5
    assert report.after["smile"] > report.before["smile"] + 0.5
    assert not torch.equal(back.latents[0], turned.latents[0])
