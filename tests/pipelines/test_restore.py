"""RestorePipeline with toy networks: the contract, and what it promises about photographs."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines import restore
from pipelines.restore import RestorePipeline
from studio import weights
from studio.background import Upsampler
from studio.errors import ImageError, InputError
from studio.faces import paste
from studio.faces.align import transform_points
from studio.faces.faces import Faces
from studio.faces.given import check_aligned, check_boxes
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.paste import with_surroundings
from studio.find import FaceFinder
from studio.identity.similarity import average
from studio.images import Photo, load
from studio.imaging.joining import Joined
from studio.latents.measure import Measured
from studio.metrics import mean_lab_difference
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.mesh import FaceMesh
from studio.networks.restorer import Restorer
from studio.networks.rrdb import RRDBNet
from studio.tone import luma
from tests import tiny
from tests.contract import PipelineContract, Recorder, With
from tests.faces.synthetic import faces_of, head, smooth_image
from tests.tiny import seeded

PEOPLE = faces_of(head((90, 80), 90.0), head((220, 90), 60.0, yaw=10.0))
PROFILE_AND_TINY = faces_of(head((90, 80), 90.0, yaw=70.0), head((220, 90), 16.0), head((150, 40), 60.0))
WITH_TINY = faces_of(head((90, 80), 90.0), head((260, 30), 8.0))


class Finder(FaceFinder):
    """Stands where `FaceFinder` does: networks of random weights find nobody. Nobody is in a black photo."""

    faces: Faces = PEOPLE

    def __call__(self, image):
        return self.faces if image.max() > 0 else Faces.empty()

    def given(self, image, boxes):
        """A face of 40 px in the middle of each box, which the mesh does not see."""
        boxes = check_boxes(boxes, *image.shape[1:])
        faces = [faces_of(head(((x0 + x1) / 2, (y0 + y1) / 2), 40.0)) for x0, y0, x1, y1 in boxes.tolist()]
        unseen = [replace(face, mesh_scores=np.zeros(1), given=np.ones(1, bool)) for face in faces]
        return Faces.cat(unseen)

    def aligned(self, image):
        check_aligned(*image.shape[1:])
        side = image.shape[1]
        face = faces_of(head((0.55 * side, 0.6 * side), 0.5 * side))
        frame = np.array([[[side, 0, 0], [0, side, 0]]], np.float32)
        return replace(face, mesh_scores=np.zeros(1), given=np.ones(1, bool), frames=frame)


@pytest.fixture(autouse=True)
def finder(monkeypatch):
    monkeypatch.setattr(restore, "FaceFinder", Finder)


def photo(seed=0):
    with seeded(seed):
        return (smooth_image(160, 300) + 0.05 * torch.rand(3, 160, 300)).clamp(0, 1)


def pipeline():
    with seeded():
        generator = Generator(channels=(8,) * 8, style_dim=8, mapping_depth=1)
        for parameter in generator.parameters():
            torch.nn.init.normal_(parameter, std=1.2)
        for conv in (generator.first, *(c for block in generator.blocks for c in (block.conv1, block.conv2))):
            conv.noise.normal_()  # so that the toy prior has texture to fill in
        restorer = Restorer(widths=(8,) * 5, feature_channels=8, latent_dim=8)
        built = RestorePipeline(
            generator.eval(),
            tiny.image_head(start=6),
            restorer.eval(),
            tiny.map_flow(),
            tiny.cleaner(),
            tiny.head_parts(),
            *tiny.detectors(),
            FaceMesh().eval(),
            IdentityNet(channels=(4, 8, 8, 8, 8), embedding_dim=128).eval(),
        )
    built.set_progress_bar_config(disable=True)
    return built


class RestoreConfig:
    def pipeline(self):
        return pipeline()

    def inputs(self):
        return {"image": photo(), "output_type": "pt", "identity_guard": None, "reference_steps": 2}

    def batch(self):
        return [photo(1), photo(2)]

    def variations(self):
        grey = luma(photo()[None])[0].expand(3, -1, -1)
        return {
            "image": photo(3),
            "faces": ["largest", 1, [0]],
            "fidelity": [0.0, 1.0],
            "strength": [0.5, [1.0, 0.2]],
            "scale": [2, 5],
            "background": [torch.zeros_like, With("none", scale=2), "esrgan", 7],
            "identity_guard": [1e-6, -1.0],
            "caution": ["no"],  # its effect: test_caution_is_for_profiles_and_tiny_faces
            "colorize": With(True, image=grey),
            "reference": photo(4),
            "reference_steps": With(-1, reference=photo(4)),
            "callback_on_step_end": With(Recorder(), reference=photo(4)),
            "callback_on_step_end_tensor_inputs": [["no_such_tensor"], "latents"],
            "boxes": [[[150, 100, 190, 150]], [[0, 0, 10]], With([], aligned=True, image=photo()[:, :, :160])],
            "region": ["face", "head", "house"],  # what "auto" does: a test of its own
            "num_inference_steps": [0, 2, -1],
            "generator": [torch.Generator().manual_seed(3), "seed"],
            "keep_readings": [True, "yes"],
            "aligned": ["yes", True, With(True, image=photo()[:, :, :160])],
            "output_type": ["pil", "np"],
        }

    def bad_inputs(self):
        return [
            ({"image": b"no image"}, ImageError, "image"),
            ({"image": torch.full((3, 40, 40), float("nan"))}, ImageError, "."),
            ({"faces": 7}, InputError, "7"),
            ({"faces": "every"}, InputError, "every"),
            ({"fidelity": 1.5}, InputError, "fidelity"),
            ({"fidelity": float("nan")}, InputError, "fidelity"),
            ({"strength": -0.1}, InputError, "strength"),
            ({"strength": [1.0]}, InputError, "strength"),
            ({"scale": 5}, InputError, "scale"),
            ({"identity_guard": 0.0}, InputError, "identity_guard"),
            ({"caution": 1}, InputError, "caution"),
            ({"reference": torch.zeros(3, 64, 64)}, InputError, "reference"),
            ({"reference_steps": -1}, InputError, "reference_steps"),
            ({"boxes": [[0, 0, 10]]}, InputError, "x0, y0, x1, y1"),
            ({"boxes": [[10, 0, 10, 10]]}, InputError, "x0 < x1"),
            ({"boxes": [[0, 400, 10, 410]]}, InputError, "in the photo"),
            ({"image": [photo(), photo()], "boxes": [[[0, 0, 9, 9]]]}, InputError, "each of 2 photos"),
            ({"faces": "given"}, InputError, "no box is given"),
            ({"aligned": True}, InputError, "must be square, the photo is 300x160"),
            ({"aligned": True, "boxes": []}, InputError, "both"),
            ({"aligned": 1}, InputError, "aligned must be True or False"),
        ]


class TestRestore(RestoreConfig, PipelineContract):
    pass


def run(image, **arguments):
    return pipeline()(image, **{"output_type": "pt", "identity_guard": None, **arguments})


def test_a_photo_without_faces_comes_back_as_it_was():
    output = run(torch.zeros(3, 64, 80))
    assert torch.equal(output.images[0], torch.zeros(3, 64, 80))
    assert output.reports == [[]]


def test_a_box_is_a_face_wherever_it_is(monkeypatch):
    """In a photo in which nobody is found, and of which the mesh sees nothing."""
    monkeypatch.setattr(Finder, "faces", Faces.empty())
    assert run(photo()).reports == [[]]
    output = run(photo(), boxes=[[130, 60, 170, 110]], region="head")
    (report,) = output.reports[0]
    assert (report.restored, report.given) == (True, True)
    assert report.note == "the mesh sees no face: aligned by its box"
    changed = (output.images[0] != photo()).any(0)
    assert changed[85, 150] and not changed[:, :90].any() and not changed[:, 210:].any()


def test_boxes_are_beside_what_is_found_and_can_be_chosen_alone():
    output = run(photo(), boxes=[[140, 110, 170, 150]], faces="given")
    assert [(report.given, report.reason) for report in output.reports[0]] == [
        (False, "not selected"),
        (False, "not selected"),
        (True, ""),
    ]
    # What is around a face that is found anyway is that face, to the bit.
    both = run(photo(), boxes=[[75, 60, 105, 100]])
    assert [report.given for report in both.reports[0]] == [True, False]
    assert torch.equal(both.images[0], run(photo()).images[0])


def test_every_photo_of_a_list_has_its_boxes():
    box = [140, 110, 170, 150]
    output = run([photo(), photo()], boxes=[[box], []])
    assert [len(reports) for reports in output.reports] == [3, 2]
    assert torch.equal(output.images[0], run(photo(), boxes=[box]).images[0])


def test_an_aligned_picture_is_the_crop():
    square = photo()[:, :, :160].contiguous()
    built = pipeline()
    (report,) = built(square, aligned=True, output_type="pt", identity_guard=None).reports[0]
    assert report.crop_pixels == 160
    assert report.note == "the mesh sees no face: aligned by the picture"
    crops, to_photo = built.crop(load(square), built.find(load(square), aligned=True))
    np.testing.assert_allclose(to_photo[0], [[160 / 512, 0, 0], [0, 160 / 512, 0]], atol=1e-6)
    large = torch.nn.functional.interpolate(square[None], (512, 512), mode="bicubic", align_corners=False)
    inside = slice(8, -8)  # at the border the crop mirrors what the interpolation repeats
    torch.testing.assert_close(crops[..., inside, inside], large.clamp(0, 1)[..., inside, inside], atol=2e-3, rtol=0)


def test_a_doubtful_face_is_aligned_by_its_first_restoration(monkeypatch):
    """The mesh is believed on the restoration where it lies about as a face does, and not where it is astray."""
    monkeypatch.setattr(Finder, "faces", replace(PEOPLE, mesh_scores=np.array([1.0, 0.6])))
    looked_at, shifts = [], [0]

    def place(finder, crops):
        looked_at.append(len(crops))
        return Measured(MEAN_MESH[None] * 512 + np.float32([10, 0, 0]) + shifts[0], np.ones(1, np.float32))

    monkeypatch.setattr(restore, "place_aligned", place)
    for shifts[0], noted in ((0, True), (200, False)):
        output = run(photo())
        assert [bool(report.note) for report in output.reports[0]] == [False, noted]
    assert looked_at == [1, 1]
    built, seen = pipeline(), replace(PEOPLE, mesh_scores=np.array([1.0, 0.6]))
    shifts[0] = 0
    settled = built.settle(load(photo()), seen, [0, 1])
    np.testing.assert_array_equal(settled.mesh[0], seen.mesh[0])
    frame = seen[[1]].crops(512)
    wanted = transform_points(MEAN_MESH[None, :, :2] * 512 + np.float32([10, 0]), frame)
    np.testing.assert_allclose(settled.mesh[[1], :, :2], wanted, atol=1e-3)
    assert settled.mesh_scores[1] == 1 and abs(settled.pose[1, 0]) < 1
    assert built.settle(load(photo()), seen, [0]) is seen


@pytest.mark.parametrize(("presence", "found", "left"), [(1.0, 1, 1), (0.95, 0, 3)])
def test_where_nobody_is_seen_doubtful_places_are_restored_and_looked_at(monkeypatch, presence, found, left):
    """The same face twice is one; a place whose restoration shows nobody stays doubtful, and so do those beyond."""
    boxes = np.float32([[40, 30, 140, 140], [42, 32, 142, 142], [10, 10, 30, 30]])
    monkeypatch.setattr(restore, "PLACES", 2)
    monkeypatch.setattr(Finder, "__call__", lambda self, image: replace(Faces.empty(), doubtful=boxes))

    def place(finder, crops):
        return Measured(np.repeat(MEAN_MESH[None] * 512, len(crops), 0), np.full(len(crops), presence, np.float32))

    monkeypatch.setattr(restore, "place_aligned", place)
    built = pipeline()
    faces = built.find(load(photo()))
    assert len(faces) == found
    assert len(faces.doubtful) == left
    assert not faces.given.any()
    reports = built(photo(), output_type="pt", identity_guard=None).reports[0]
    assert [report.restored for report in reports] == [True] * found
    if found:
        wanted = transform_points(MEAN_MESH[None, :, :2] * 512, built.finder().given(photo(), boxes[:1]).crops(512))
        np.testing.assert_allclose(faces.mesh[0, :, :2], wanted[0], atol=1e-3)


@pytest.mark.parametrize(("presence", "found"), [(0.95, 2), (0.2, 1)])
def test_a_face_that_only_the_detector_sees_must_show_one_when_restored(monkeypatch, presence, found):
    doubted = replace(PEOPLE, mesh_scores=np.array([1.0, 0.1]), scores=np.array([0.9, 0.7]))
    monkeypatch.setattr(Finder, "faces", doubted)
    looked_at = []

    def place(finder, crops):
        looked_at.append(len(crops))
        return Measured(MEAN_MESH[None] * 512, np.float32([presence]))

    monkeypatch.setattr(restore, "place_aligned", place)
    built = pipeline()
    faces = built.find(load(photo()))
    assert len(faces) == found
    np.testing.assert_array_equal(faces.doubtful, PEOPLE.boxes[found:])
    np.testing.assert_array_equal(faces.mesh[0], PEOPLE.mesh[0])
    assert (faces.mesh_scores >= 0.5).all()
    assert [report.note for report in built(photo(), output_type="pt").reports[0]] == [""] * found
    assert looked_at == [1, 1]  # once for each photo: who was looked at is not looked at again to be aligned


def test_a_face_that_the_detector_is_very_sure_of_needs_no_proof(monkeypatch):
    """Printing dots and 20 px hide real faces from the mesh, on the restoration too."""
    sure = replace(PEOPLE, mesh_scores=np.array([1.0, 0.1]), scores=np.array([0.9, 0.85]))
    monkeypatch.setattr(Finder, "faces", sure)
    nobody = Measured(MEAN_MESH[None] * 512, np.zeros(1, np.float32))
    monkeypatch.setattr(restore, "place_aligned", lambda finder, crops: nobody)
    faces = pipeline().find(load(photo()))
    np.testing.assert_array_equal(faces.mesh, PEOPLE.mesh)
    assert len(faces.doubtful) == 0


def test_places_astray_are_no_faces(monkeypatch):
    boxes = np.float32([[40, 30, 140, 140]])
    monkeypatch.setattr(Finder, "__call__", lambda self, image: replace(Faces.empty(), doubtful=boxes))
    far = Measured(MEAN_MESH[None] * 512 + np.float32([200, 0, 0]), np.ones(1, np.float32))
    monkeypatch.setattr(restore, "place_aligned", lambda finder, crops: far)
    faces = pipeline().find(load(photo()))
    assert len(faces) == 0
    np.testing.assert_array_equal(faces.doubtful, boxes)


def test_a_face_cut_by_the_edge_is_noted(monkeypatch):
    monkeypatch.setattr(Finder, "faces", faces_of(head((10, 80), 90.0), head((220, 90), 60.0)))
    assert [report.note for report in run(photo()).reports[0]] == ["cut by the edge of the photo", ""]


def test_faces_left_alone_say_why(monkeypatch):
    monkeypatch.setattr(Finder, "faces", WITH_TINY)
    reports = run(photo(), faces="all").reports[0]
    assert [report.restored for report in reports] == [True, False]
    assert reports[1].reason.startswith("too small")
    assert run(photo(), faces=[]).reports[0][0].reason == "not selected"
    assert run(photo(), strength=0.0).reports[0][0].reason == "strength 0"


def test_caution_is_for_profiles_and_tiny_faces(monkeypatch):
    """They are restored as with the fidelity that the report names, the others as asked for."""
    monkeypatch.setattr(Finder, "faces", PROFILE_AND_TINY)
    built, image = pipeline(), load(photo())
    careful, careless, named = (
        run(photo(), fidelity=f, caution=c) for f, c in ((0.3, True), (0.3, False), (0.8, True))
    )
    assert [report.fidelity for report in careful.reports[0]] == [0.75, 0.75, 0.3]
    assert [report.reason for report in careful.reports[0]] == ["profile: fidelity 0.75", "tiny: fidelity 0.75", ""]
    assert [(report.fidelity, report.reason) for report in careless.reports[0]] == [(0.3, "")] * 3
    assert [(report.fidelity, report.reason) for report in named.reports[0]] == [(0.8, "")] * 3
    assert not torch.equal(careful.images[0], careless.images[0])
    crops, _ = built.crop(image, PROFILE_AND_TINY)
    each = built.restore_crops(crops, torch.tensor([0.75, 0.75, 0.3]))
    for i, fidelity in enumerate((0.75, 0.75, 0.3)):
        torch.testing.assert_close(each[[i]], built.restore_crops(crops[[i]], fidelity), atol=1e-5, rtol=0)


def test_strength_zero_changes_nothing():
    image = photo()
    assert torch.equal(run(image, strength=0.0).images[0], image)


def test_outside_the_masks_every_pixel_stays():
    image, built = photo(), pipeline()
    output = run(image, region="head")
    crops, to_photo = built.crop(load(image), PEOPLE)
    masks = built.masks(built.read(crops), to_photo, PEOPLE, "head")
    touched = paste.blend(torch.zeros_like(image), torch.ones_like(crops), masks, to_photo) > 0
    assert torch.equal(output.images[0][~touched], image[~touched])
    assert (output.images[0] != image).any()


@pytest.mark.parametrize("scale", [1, 1.5, 2, 3, 4])
def test_scale_is_exact(scale):
    cropped = photo()[:, :159]
    assert run(cropped, scale=scale).images[0].shape == (3, int(159 * scale + 0.5), 300 * scale)


def test_without_a_background_the_photo_keeps_its_size():
    output = run(photo(), scale="auto", background="none")
    assert output.scales == [1]
    assert torch.equal(output.images[0], run(photo(), scale=1).images[0])


def test_a_network_draws_all_but_the_faces(monkeypatch):
    """Loaded once for a pipeline, and followed tile by tile."""
    loaded = []
    with tiny.seeded():
        net = RRDBNet(width=4, growth=2, blocks=0).eval()
    tiny.fill_randomly(net)
    monkeypatch.setattr(weights, "load", lambda name: loaded.append(name) or net)
    pipe = pipeline()
    outputs = [pipe(photo(), output_type="pt", scale=2, background="span") for _ in range(2)]
    assert loaded == ["span"]
    drawn, plain = outputs[1].images[0], run(photo(), scale=2).images[0]
    torch.testing.assert_close(drawn[:, :, -40:], Upsampler(net)(photo(), 2)[:, :, -40:])
    assert float((drawn - plain)[:, :, -40:].abs().mean()) > 0.01


def test_a_function_draws_all_but_the_faces():
    """It may enlarge by what it likes: the result has the size that was asked for."""
    seen = []

    def red(pixels):
        seen.append(tuple(pixels.shape))
        return torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 480, 900)

    output = run(photo(), scale=2, background=red).images[0]
    assert seen == [(1, 3, 160, 300)]
    assert output.shape == (3, 320, 600)
    assert output[:, -1, -1].tolist() == pytest.approx([1, 0, 0])
    assert float(output[1].max()) > 0.2  # the faces


@pytest.mark.parametrize("made", [None, torch.zeros(3, 320, 600), torch.full((1, 3, 320, 600), float("nan"))])
def test_a_function_that_returns_no_picture(made):
    with pytest.raises(InputError, match="background must return"):
        run(photo(), scale=2, background=lambda pixels: made)


def test_the_size_that_shows_the_largest_face():
    """The larger face is cut from 123 px of the photo."""
    output = run(photo(), scale="auto")
    assert output.scales == [4]
    assert output.images[0].shape == (3, 640, 1200)
    assert run(photo(), scale="auto", identity_guard=1e-9).scales == [1]  # nobody was restored
    assert run(torch.zeros(3, 160, 300), scale="auto").scales == [1]
    assert run(photo(), scale=2).scales == [2]


def test_the_largest_size_that_is_not_too_large():
    tiny_face = np.array([[[0.1, 0, 0], [0, 0.1, 0]]])
    assert [restore.fitting_scale(load(torch.zeros(3, side, side)), tiny_face) for side in (100, 1500, 3000)] == [
        4,
        2,
        1,
    ]


def test_a_face_of_about_half_the_crop_is_not_doubled_twice():
    """The same portrait measured 254 px in grey and 257 px in colour, and came out 4 and 2 times as large."""
    for measured in (254, 257):
        face = np.array([[[measured / 512, 0, 0], [0, measured / 512, 0]]])
        assert restore.fitting_scale(load(torch.zeros(3, 400, 300)), face) == 2


def test_guard_gives_the_person_back_and_says_so():
    image = photo()
    output = run(image, identity_guard=1e-9)
    assert torch.equal(output.images[0], image)
    assert {report.reason for report in output.reports[0]} == {"identity guard: left as it was"}
    assert not any(report.restored for report in output.reports[0])


def test_guard_lowers_the_strength_until_it_passes():
    free = run(photo()).reports[0][0]
    guarded = run(photo(), identity_guard=free.identity_distance * 0.7).reports[0][0]
    assert 0 < guarded.strength < 1
    assert guarded.identity_distance <= free.identity_distance * 0.7
    assert guarded.reason == f"identity guard: strength {guarded.strength:.2f}"


def test_grey_stays_exactly_grey():
    grey = luma(photo()[None])[0].expand(3, -1, -1)
    red, green, blue = run(grey).images[0]
    assert torch.equal(red, green)
    assert torch.equal(green, blue)


def test_sepia_keeps_its_tone():
    grey = luma(photo()[None])[0]
    sepia = (grey * torch.tensor([1.0, 0.85, 0.65]).view(3, 1, 1)).clamp(0, 1)
    result = run(sepia).images[0]
    tint = torch.tensor([1.0, 0.85, 0.65]).view(1, 3, 1, 1)
    expected = luma(result[None]) * tint / luma(tint)
    assert float(mean_lab_difference(result[None], expected.clamp(0, 1))) < 1.0


def test_alpha_depth_and_profile_are_kept():
    image = load(photo())
    image = dataclasses.replace(image, alpha=torch.rand(1, 160, 300), bits=16, icc=None)
    output = run(image, scale=2).photos[0]
    assert isinstance(output, Photo)
    assert output.bits == 16
    assert output.alpha.shape == (1, 320, 600)


def test_reference_distances():
    report = run(photo(), reference=photo(5), reference_steps=0).reports[0][0]
    assert report.reference_before > 0
    assert report.reference_after != report.reference_before
    assert not report.guided
    assert run(photo()).reports[0][0].reference_before is None


@pytest.fixture
def eager(monkeypatch):
    """Steps that get somewhere with toys, whose faces are all much alike."""
    for name, value in {"RATE": 0.5, "TEXTURE_RATE": 0.5, "NEAR": 0.0, "PLACE": 0.0}.items():
        monkeypatch.setattr(f"studio.latents.resemble.{name}", value)
    # Toys draw far outside of the range of pictures, where nothing can be told apart any more.
    monkeypatch.setattr("pipelines.restore.match_tone", lambda picture, photo: photo + 0.2 * torch.tanh(picture - 0.5))
    monkeypatch.setattr("pipelines.restore.without_lattice", lambda picture: picture)


def test_a_reference_draws_the_nearest_face_like_the_person(eager):
    built, image = pipeline(), photo()
    person = built.embed_reference(photo(5))
    plain, led = (
        built(image, output_type="pt", identity_guard=None, fidelity=0.0, reference=person, reference_steps=steps)
        for steps in (0, 6)
    )
    nearest = int(np.argmin([report.reference_before for report in plain.reports[0]]))
    assert [report.guided for report in led.reports[0]] == [i == nearest for i in (0, 1)]
    before, after = (output.reports[0] for output in (plain, led))
    assert after[nearest].reference_after < before[nearest].reference_after
    assert after[1 - nearest].reference_after == before[1 - nearest].reference_after
    assert not torch.equal(plain.images[0], led.images[0])


@pytest.fixture
def black(monkeypatch):
    """Guiding makes a face black, and who somebody is is how bright they are."""
    monkeypatch.setattr("studio.identity.references.LENGTHS", (0.0, 12.0))
    nothing = torch.zeros(1, 1, restore.CROP, restore.CROP)
    monkeypatch.setattr(RestorePipeline, "guide", lambda self, crop, *given: Joined(crop * 0, nothing, nothing))
    monkeypatch.setattr(RestorePipeline, "embed", lambda self, crops, *given: crops.mean((2, 3)).repeat(1, 43)[:, :128])


def test_of_chosen_faces_only(black):
    reports = run(photo(), reference=torch.zeros(128), faces=1).reports[0]
    assert [report.guided for report in reports] == [False, True]
    assert run(torch.zeros(3, 160, 300), reference=torch.zeros(128)).reports == [[]]


def test_the_guard_leaves_a_guided_face_alone(eager):
    given = {"reference": photo(5), "reference_steps": 6, "faces": 0, "fidelity": 0.0, "identity_guard": 1e-6}
    report = run(photo(), **given).reports[0][0]
    assert (report.guided, report.strength, report.reason) == (True, 1.0, "")
    assert run(photo(), **given | {"reference_steps": 0}).reports[0][0].strength == 0.0


def test_steps_that_lead_away_are_not_taken(black):
    output = run(photo(), reference=torch.ones(128), reference_steps=3)
    assert not any(report.guided for report in output.reports[0])
    assert torch.equal(output.images[0], run(photo()).images[0])


def test_every_step_is_told(eager):
    told = []
    run(
        photo(),
        reference=photo(5),
        reference_steps=3,
        callback_on_step_end=lambda pipe, step, time, values: told.append((step, values["identity_distance"])),
    )
    assert [step for step, _ in told] == [0, 1, 2]
    assert all(distance > 0 for _, distance in told)


def test_a_monochrome_photo_keeps_its_tone_when_it_is_guided(eager):
    grey = luma(photo()[None])[0].expand(3, -1, -1).contiguous()
    output = run(grey, reference=photo(5), reference_steps=2, faces=0, fidelity=0.0)
    assert output.reports[0][0].guided
    assert torch.equal(output.images[0], output.images[0][:1].expand(3, -1, -1))


def test_several_references_are_averaged_and_must_show_one_person(monkeypatch):
    built = pipeline()
    first, second = (
        torch.nn.functional.normalize(torch.randn(128, generator=rng), dim=0) for rng in (seed(1), seed(2))
    )
    near = torch.nn.functional.normalize(first + 0.02 * second, dim=0)
    torch.testing.assert_close(built.embed_reference(first), first)
    assert torch.allclose(built.embed_reference([first, near]), average([first, near]))
    with pytest.raises(InputError, match="must show one person"):
        built.embed_reference([first, near, second])
    with pytest.raises(InputError, match="empty list"):
        built.embed_reference([])


def seed(number):
    return torch.Generator().manual_seed(number)


def test_the_steps_work_alone():
    built, image = pipeline(), load(photo())
    faces = built.find(image)
    crops, to_photo = built.crop(image, faces)
    reading = built.read(crops)
    joined = built.join(reading)
    assert torch.equal(built.restore_crops(crops), joined.picture)
    blended, used, distances = built.guard(crops, joined.picture, to_photo, faces, np.ones(2, np.float32), None)
    masks = built.masks(reading, to_photo, faces, "photo")
    made = dataclasses.replace(joined, picture=blended)
    reach = with_surroundings(masks, faces.mesh, [0, 1], to_photo)
    by_hand, invented = built.paste(built.clean(image), made, crops, to_photo, reach)
    output = run(photo(), region="photo")
    assert not joined.picture.requires_grad
    torch.testing.assert_close(by_hand.pixels, output.images[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(invented, output.invented[0], atol=1e-5, rtol=0)
    assert used.tolist() == [1.0, 1.0]
    assert distances.round(3).tolist() == pytest.approx([r.identity_distance for r in output.reports[0]], abs=2e-3)


def test_the_knob_runs_no_network(monkeypatch):
    built, image = pipeline(), load(photo())
    crops, _ = built.crop(image, built.find(image))
    reading = built.read(crops)
    wanted = [built.restore_crops(crops, fidelity) for fidelity in (0.0, 0.6)]
    for name in ("generator", "restorer", "flow", "cleaner"):
        monkeypatch.setattr(getattr(built, name), "forward", None)
    for fidelity, picture in zip((0.0, 0.6), wanted, strict=True):
        torch.testing.assert_close(built.join(reading, fidelity).picture, picture, atol=1e-6, rtol=0)


def test_some_of_the_faces_that_were_read():
    built, image = pipeline(), load(photo())
    crops, _ = built.crop(image, built.find(image))
    reading = built.read(crops)
    torch.testing.assert_close(built.join(reading[1:]).picture, built.join(reading).picture[1:])


def test_what_was_read_is_given_back_for_another_fidelity():
    built = pipeline()
    grey = luma(photo()[None])[0].expand(3, -1, -1)
    for image in (photo(), grey):
        output = built([image, torch.zeros(3, 64, 64)], keep_readings=True)
        reading, nothing = output.readings
        crops, _ = built.crop(load(image), output.faces[0])
        assert len(reading) == len(crops) == 2 and len(nothing) == 0
        assert (reading.tone is None) == (image is not grey)
        picture = built.join(reading[:1], 0.2, reading.tone).picture
        torch.testing.assert_close(picture, built.restore_crops(crops, 0.2, reading.tone)[:1], atol=1e-6, rtol=0)
    assert built(photo()).readings is None


def test_seeds_draw_other_faces_and_the_same_seed_the_same():
    first, again, other = (run(photo(), generator=seed(number), fidelity=0.0).images[0] for number in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    usual, zero = (run(photo(), faces="largest", generator=rng).images[0] for rng in (None, seed(0)))
    assert torch.equal(usual, zero)


def test_a_face_with_nothing_wrong_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(restore, "UNCHANGED_INVENTED", 2.0)
    monkeypatch.setattr(restore, "UNCHANGED_DIFFERENCE", 2.0)
    output = run(photo())
    assert torch.equal(output.images[0], photo())
    assert {(report.restored, report.reason, report.region) for report in output.reports[0]} == {
        (False, "nothing to restore", "")
    }
    assert output.invented[0].max() == 0


def test_auto_cleans_the_photo_where_its_surroundings_are_damaged(monkeypatch):
    for least, region in ((0.0, "head"), (1.1, "photo")):
        monkeypatch.setattr(restore, "SURE_AROUND", least)
        output = run(photo())
        assert {report.region for report in output.reports[0]} == {region}
        assert torch.equal(output.images[0], run(photo(), region=region).images[0])
        outside = output.images[0][:, -6:, :6]
        assert torch.equal(outside, photo()[:, -6:, :6]) == (region == "head")


def test_what_was_invented_is_shown_where_it_was():
    output = run(photo(), fidelity=0.0, region="head")
    invented = output.invented[0]
    assert invented.shape == photo().shape[1:]
    assert 0.5 < invented.max() <= 1
    unchanged = (output.images[0] == photo()).all(0)
    assert invented[unchanged].max() < 0.02
    assert all(0.5 < report.invented <= 1 for report in output.reports[0])
    half = run(photo(), fidelity=0.0, region="head", strength=0.5)
    torch.testing.assert_close(half.invented[0], 0.5 * invented, atol=1e-4, rtol=0)
    assert half.reports[0][0].invented == pytest.approx(0.5 * output.reports[0][0].invented, abs=1e-3)
    careful = run(photo(), fidelity=0.9, region="head")
    assert careful.invented[0].mean() < invented.mean()


def test_a_grey_photo_is_cleaned_in_its_tone():
    grey = luma(photo()[None])[0].expand(3, -1, -1).contiguous()
    red, green, blue = run(grey, region="photo").images[0]
    assert torch.equal(red, green)
    assert torch.equal(green, blue)
    assert not torch.equal(red[-6:, :6], grey[0, -6:, :6])
