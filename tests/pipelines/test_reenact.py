"""ReenactPipeline with toy networks: the contract, and what it promises about drivers, frames and files."""

import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines import reenact
from pipelines.reenact import ASIDE, FURTHEST, NEARER, within_reach
from studio.errors import ImageError, InputError, NoFaceError
from studio.motion import stage
from studio.motion.expression import eyes, opening
from studio.motion.head import HEAD, angles, head_poses, rotations
from studio.motion.motion import Motion
from studio.motion.retarget import LOWER_LIP
from studio.tone import luma
from tests import tiny
from tests.contract import PipelineContract, Recorder, With
from tests.faces.synthetic import faces_of, head
from tests.motion.moving import MESH, lids_closed, motion

FRAMES = 3


class Following(tiny.SureFinder):
    """A mesh of random weights loses a face. Here it stays in its place, and turns as the picture is bright or dark."""

    def follow(self, image, mesh):
        pose = head_poses(mesh[None])
        turn = rotations(np.array([[40 * (float(image.mean()) - 0.5), 0, 0]]))
        return replace(pose, rotation=turn).place(HEAD[None])[0], 0.9 if image.max() > 0 else 0.1


@pytest.fixture(autouse=True)
def finder(monkeypatch):
    monkeypatch.setattr(reenact, "FaceFinder", Following)


def photo(width=80, seed=7):
    return tiny.image(72, width, seed=seed)


def driver(count=FRAMES, **parts):
    """Turns, opens the mouth and looks aside."""
    mesh = np.repeat(HEAD[None], count, 0)
    mesh[:, LOWER_LIP, 1] += 0.01 * np.arange(count)[:, None]
    turns = rotations(np.stack([6.0 * np.arange(count), *np.zeros((2, count))], 1))
    gaze = np.stack([0.1 * np.arange(count), np.zeros(count)], 1).astype(np.float32)
    return motion(count, **({"mesh": mesh, "rotation": turns, "gaze": gaze} | parts))


def clip(count=FRAMES):
    """Frames that show somebody moving."""
    return [tiny.image(72, 80, seed=1).roll(k, 2) for k in range(count)]


class ReenactConfig:
    batch_argument = None
    volatile = ("seconds",)

    def pipeline(self):
        return tiny.reenact_pipeline()

    def inputs(self):
        return {"source": photo(), "driving": driver(), "consent": True, "output_type": "pt", "measure_every": 2}

    def variations(self):
        return {
            "source": photo(seed=3),
            "driving": driver(2),
            "consent": False,
            "relative": With(False, driving=driver(rotation=rotations(np.full((FRAMES, 3), 9.0)))),
            "region": ["pose", "mouth", "eyes"],
            "expression_scale": [0.0, 2],
            "stitch": False,
            "size": With(512, stitch=False),
            "face": With(1, source=photo(160), face=0),
            "driving_face": [With(1, driving=[photo(160)] * 2, driving_face=0), 1],
            "start": [0.03, With(0.03, driving=clip())],
            "end": [0.05, With(0.05, driving=clip())],
            "fps": [With(10, driving=clip()), 10],
            "batch_size": 0,
            "measure_every": [0, 1],
            "output": self.folder / "out.mp4",
            "audio": [With(None, output=self.folder / "driven.mp4", overwrite=True, driving=self.talk()), "a.wav"],
            "overwrite": True,
            "callback_on_step_end": Recorder(),
            "callback_on_step_end_tensor_inputs": [["no_such_tensor"], "latents"],
            "output_type": ["pil", "np", "frames"],
        }

    def bad_inputs(self):
        return [
            ({"source": b"no image"}, ImageError, "image"),
            ({"source": torch.full((3, 16, 16), float("nan"))}, ImageError, "finite"),
            ({"source": torch.zeros(3, 72, 80)}, NoFaceError, "none was found"),
            ({"source": photo(160)}, InputError, "shows 2.*face=0"),
            ({"source": photo(160), "face": 2}, InputError, "0 to 1.*got 2"),
            *(({"face": value}, InputError, "face must be an index") for value in (-1, True, 0.0)),
            *(({"consent": value}, InputError, "consent=True") for value in (False, None, 1, "yes")),
            ({"driving": 7}, InputError, "driving must be a video, a motion or frames, got int"),
            ({"driving": None}, InputError, "driving"),
            ({"driving": []}, InputError, "must be frames"),
            ({"driving": "missing.mp4"}, ImageError, "missing.mp4"),
            ({"driving": "missing.safetensors"}, InputError, "a file of `studio motion`"),
            ({"driving": [torch.zeros(3, 72, 80)] * 2}, NoFaceError, "none was found in 2 frames"),
            ({"driving": [photo(), photo(90)]}, InputError, "one size"),
            ({"driving": clip(), "fps": 0}, InputError, "fps must be above 0"),
            ({"driving": clip(), "fps": float("nan")}, InputError, "fps"),
            ({"driving": clip(), "fps": "fast"}, InputError, "fps"),
            ({"driving": clip(), "driving_face": -1}, InputError, "driving_face"),
            ({"driving": clip(), "start": 9.0}, InputError, "must be frames"),
            ({"start": -1.0}, InputError, "start must be 0 or more"),
            ({"start": 2.0, "end": 1.0}, InputError, "end must be after start"),
            ({"start": 60.0}, InputError, "must have frames from start=60.0"),
            ({"fps": 10.0}, InputError, "fps must be left out"),
            ({"driving_face": 0}, InputError, "driving_face must be left out"),
            ({"region": "nose"}, InputError, "region must be one of.*'mouth'"),
            *(({"size": value}, InputError, "size must be one of 256, 512") for value in (128, True, "256")),
            *(({"expression_scale": v}, InputError, "expression_scale") for v in (-0.1, 2.1, float("nan"), True, "1")),
            *(({"batch_size": value}, InputError, "batch_size.*1 or more") for value in (0, -3, 2.0, True)),
            *(({"measure_every": value}, InputError, "measure_every.*0 or more") for value in (-1, 1.5, False)),
            ({"output": self.folder / "out.txt"}, InputError, "must end in one of"),
            ({"output": self.folder}, InputError, "must end in one of"),
            ({"output": self.folder / "out.mp4", "audio": "none.wav"}, ImageError, "none.wav"),
            ({"audio": "talk.wav"}, InputError, "must come with output"),
            ({"overwrite": True}, InputError, "must come with output"),
        ]

    def talk(self):
        path = self.folder / "talk.mp4"
        return path if path.exists() else written(path, sounding=self.folder / "tone.wav")


class TestReenact(ReenactConfig, PipelineContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        pytest.importorskip("av", reason="the extra `video` is not installed")
        self.folder = tmp_path


def written(path, frames=None, sounding=None):
    """A clip, and a tone under it."""
    from studio.video import Writer

    if sounding is not None:
        tone(sounding)
    with Writer(path, (72, 80), 25, audio_from=sounding) as writer:
        for k, frame in enumerate(frames or clip()):
            writer.write(frame, k / 25)
    return path


def tone(path, seconds=1):
    """A sound file."""
    import wave

    samples = (8000 * np.sin(np.arange(seconds * 48_000) / 20)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(samples.tobytes())
    return path


@pytest.fixture(scope="module")
def built():
    return tiny.reenact_pipeline()


def run(built, driving=None, **arguments):
    settings = {"source": photo(), "consent": True, "output_type": "pt", "measure_every": 0}
    return built(driving=driver() if driving is None else driving, **(settings | arguments))


def test_consent_is_asked_before_anything_is_read(built):
    with pytest.raises(InputError, match="consent"):
        built("no such photo.jpg", "no such video.mp4")


def test_a_small_face_is_refused(built, monkeypatch):
    monkeypatch.setattr(tiny.SureFinder, "__call__", lambda self, image: faces_of(head((40, 36), 10.0)))
    with pytest.raises(InputError, match=r"12 px between its eyes.*restore or enlarge"):
        run(built)


def test_every_kind_of_driver(built, tmp_path):
    pytest.importorskip("av", reason="the extra `video` is not installed")
    given = driver()
    given.save(tmp_path / "motion.safetensors")
    of_object, of_file = (run(built, kind) for kind in (given, tmp_path / "motion.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(of_object.frames, of_file.frames, strict=True))
    assert of_object.motion is given
    of_frames = run(built, clip())
    assert isinstance(of_frames.motion, Motion)
    assert len(of_frames.frames) == FRAMES
    np.testing.assert_allclose(of_frames.motion.times, np.arange(FRAMES) / 25)
    again = run(built, of_frames.motion)
    assert all(torch.equal(a, b) for a, b in zip(of_frames.frames, again.frames, strict=True))
    of_iterator = run(built, iter(clip()), fps=10.0)
    np.testing.assert_allclose(of_iterator.motion.times, np.arange(FRAMES) / 10)
    of_video = run(built, written(tmp_path / "clip.mp4"))
    assert [frame.time for frame in of_video.report.frames] == pytest.approx([0, 0.04, 0.08], abs=1e-3)
    cut = run(built, tmp_path / "clip.mp4", start=0.03)
    assert [frame.time for frame in cut.report.frames] == pytest.approx([0.04, 0.08], abs=1e-3)


def test_a_stretch_of_a_motion_and_of_frames(built):
    for driving in (driver(10), clip(10)):
        output = run(built, driving, start=0.12, end=0.24)
        assert [frame.time for frame in output.report.frames] == pytest.approx([0.12, 0.16, 0.20])
        assert len(output.motion) == 3


def test_frames_without_a_driver_and_turns_too_far_are_counted(built):
    presence = np.array([1, 0.2, 0.1, 1, 1], np.float32)
    turns = rotations(np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [70, 0, 0], [0, -60, 0]]))
    report = run(built, driver(5, presence=presence, rotation=turns), measure_every=2).report
    summary = report.summary()
    assert (summary["frames"], summary["held"], summary["limited"], summary["measured"]) == (5, 2, 2, 3)
    assert [frame.limited for frame in report.frames] == [False, False, False, True, True]
    for frame in report.frames:
        assert abs(frame.asked[0]) <= FURTHEST[0] + 0.1
        assert abs(frame.asked[1]) <= FURTHEST[1] + 0.1
    assert [frame.got is None for frame in report.frames] == [False, True, False, True, False]
    assert report.to_dict()["summary"] == summary


def test_what_is_within_reach_is_left_as_it_is():
    meshes = driver(4, rotation=rotations(np.array([[0, 0, 0], [44, 10, 5], [80, 0, 20], [-50, 40, 0]]))).placed
    meshes = meshes / 512
    kept, limited = within_reach(meshes, meshes[0])
    assert limited.tolist() == [False, False, True, True]
    np.testing.assert_array_equal(kept[:2], meshes[:2])
    np.testing.assert_allclose(
        angles(head_poses(kept).rotation)[2:], [[FURTHEST[0], 0, 20], [-FURTHEST[0], FURTHEST[1], 0]], atol=0.3
    )
    np.testing.assert_allclose(head_poses(kept).translation, head_poses(meshes).translation, atol=1e-4)


def test_a_head_stays_in_its_crop():
    """A driver who comes close, or walks off, is followed as far as the crop goes, and that is said."""
    still = driver(1).placed[0] / 512
    pose = head_poses(still[None])
    near = replace(pose, scale=pose.scale * 1.6).place(pose.remove(still[None]))
    aside = still[None] + np.array([0.3, 0, 0], np.float32)
    kept, limited = within_reach(np.concatenate([near, aside, still[None]]), still)
    assert limited.tolist() == [True, True, False]
    seen = head_poses(kept)
    assert seen.scale[0] == pytest.approx(NEARER * pose.scale[0], rel=1e-4)
    np.testing.assert_allclose(seen.translation[1] - pose.translation[0], [ASIDE, 0, 0], atol=1e-4)


def test_a_driver_that_does_nothing_keeps_the_pose(built):
    report = run(built, motion(2)).report
    assert report.frames[0].asked == report.frames[1].asked
    assert not any(frame.limited for frame in report.frames)


def test_the_photo_stays_outside_the_head_to_the_bit(built):
    source = tiny.image(300, 96, seed=2)
    subject = built.prepare(source, None)
    output = run(built, source=source)
    crop_to_photo = subject.affine[0]
    corners = crop_to_photo @ np.array([[0, 256, 0, 256], [0, 0, 256, 256], [1, 1, 1, 1]])
    x1, y1 = np.ceil(corners.max(1)).astype(int) + 1
    assert y1 < 250  # something lies outside
    for frame in output.frames:
        assert frame.shape == source.shape
        outside = torch.ones(300, 96, dtype=torch.bool)
        outside[:y1, :x1] = False
        assert torch.equal(frame[:, outside], source[:, outside])
        assert not torch.equal(frame, source)


def test_large_photos_are_shrunk(built):
    wide = torch.nn.functional.interpolate(photo()[None], (144, 2560), mode="bilinear")[0]
    shown = built.prepare(wide, 0).photo.shape if wide.shape[2] > 100 else None
    assert shown == (3, 72, 1280)


def test_monochrome_photos_stay_in_their_tone(built):
    grey = luma(photo()[None])[0].expand(3, -1, -1).contiguous()
    for stitch in (True, False):
        for frame in run(built, source=grey, stitch=stitch).frames:
            assert torch.allclose(frame[0], frame[1], atol=1e-5)
            assert torch.allclose(frame[1], frame[2], atol=1e-5)
    assert run(built).frames[0].std(0).max() > 0.01  # others have colour


def test_the_aligned_face_alone(built):
    output = run(built, stitch=False)
    assert output.frames[0].shape == (3, 256, 256)
    assert output.report.size == (256, 256)
    larger = run(built, stitch=False, size=512)
    assert larger.frames[0].shape == (3, 512, 512)
    shrunk = torch.nn.functional.interpolate(larger.frames[1][None], (256, 256), mode="area")[0]
    assert (shrunk - output.frames[1]).abs().mean() < 0.02  # the same, but larger


def test_an_iterator_draws_as_it_is_taken_and_holds_one_batch(built, monkeypatch):
    drawn, alive = [], []
    draw = stage.draw

    def watched(*given):
        gc.collect()
        alive.append(sum(ref() is not None for ref in drawn))
        made = draw(*given)
        drawn.append(weakref.ref(made))
        assert len(made) <= 2
        return made

    monkeypatch.setattr(reenact, "stage", SimpleNamespace(make_stage=stage.make_stage, draw=watched))
    for stitch in (True, False):
        drawn.clear()
        alive.clear()
        output = run(built, driver(5), batch_size=2, output_type="frames", stitch=stitch)
        assert not drawn
        assert output.report.frames == []
        for i, frame in enumerate(output.frames):
            assert frame.shape == ((3, 72, 80) if stitch else (3, 256, 256))
            assert len(drawn) == i // 2 + 1
            assert len(output.report.frames) == i + 1
        assert alive == [0, 0, 0]


def test_frames_are_the_same_however_they_are_taken(built):
    whole = run(built, driver(5)).frames
    with torch.inference_mode():
        taken = list(run(built, driver(5), output_type="frames", batch_size=2).frames)
    for a, b in zip(whole, taken, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    pictures = run(built, driver(5), output_type="np").frames
    np.testing.assert_allclose(pictures[2], whole[2].permute(1, 2, 0).numpy(), atol=1e-6)


def test_a_file_is_written_with_the_drivers_sound(built, tmp_path):
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    from studio import video

    clip_ = written(tmp_path / "talk.mp4", clip(5), tone(tmp_path / "tone.wav"))
    output = run(built, clip_, output=tmp_path / "out.mp4")
    assert output.path == tmp_path / "out.mp4"
    assert output.frames == []
    info = video.probe(output.path)
    assert (info.height, info.width) == (72, 80)
    assert [round(frame.time, 3) for frame in video.read(output.path)] == [0, 0.04, 0.08, 0.12, 0.16]
    with av.open(str(output.path)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) / 48_000 > 0.1
    assert "sound" in output.report.notes[0]
    with pytest.raises(ImageError, match="is there"):
        run(built, clip_, output=tmp_path / "out.mp4")
    silent = run(built, clip_, output=tmp_path / "out.mp4", overwrite=True, audio=None)
    with av.open(str(silent.path)) as container:
        assert not container.streams.audio
    own = run(built, output=tmp_path / "own.mp4", audio=tmp_path / "tone.wav")
    with av.open(str(own.path)) as container:
        assert container.streams.audio


def test_a_target_that_cannot_be_is_refused_before_the_driver_is_followed(built, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="the extra `video` is not installed")
    monkeypatch.setattr(reenact, "track", lambda *given, **named: 1 / 0)
    (tmp_path / "there.mp4").write_bytes(b"x")
    for target in ("there.mp4", "out.doc"):
        with pytest.raises((ImageError, InputError), match="target"):
            run(built, clip(), output=tmp_path / target)
    assert (tmp_path / "there.mp4").read_bytes() == b"x"


def test_the_callback_sees_every_frame_and_what_it_raises_leaves_no_file(built, tmp_path):
    pytest.importorskip("av", reason="the extra `video` is not installed")
    seen = []
    run(built, callback_on_step_end=lambda pipe, i, t, given: seen.append((i, t, tuple(given["frame"].shape))))
    assert seen == [(i, i, (3, 72, 80)) for i in range(FRAMES)]

    def stop(pipeline, index, *given):
        if index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(built, output=tmp_path / "out.mp4", callback_on_step_end=stop)
    assert not list(tmp_path.iterdir())


def test_the_report_measures_the_drawn_face(built):
    output = run(built, driver(2), measure_every=1, stitch=False)
    subject = built.prepare(photo())
    for frame, row in zip(output.frames, output.report.frames, strict=True):
        vector = built.encoder().embed(frame, built.finder().follow(frame, subject.stage.mesh * 256)[0][None])
        assert row.identity_distance >= 0
        assert vector.shape[-1] == subject.person.shape[-1]
        assert len(row.got) == len(row.asked) == 3
        assert all(opened >= 0 for pair in (row.mouth, row.eyes) for opened in pair)
    unmeasured = run(built, driver(2)).report
    assert unmeasured.frames[0].mouth[1] is None
    assert unmeasured.summary()["mean_identity_distance"] is None


def test_openings_are_read_from_the_mesh():
    mesh = MESH.copy()
    mesh[LOWER_LIP, 1] += 0.05
    assert opening(mesh[None]) > opening(MESH[None]) + 0.05
    assert eyes(mesh[None]) == pytest.approx(eyes(MESH[None]))
    assert eyes(lids_closed(MESH)[None]) < 0.2 * eyes(MESH[None])
