"""`studio reenact` and `studio faces --depth` with toy networks."""

import json
import sys

import pytest
import torch

from pipelines import reenact
from pipelines.reenact import ReenactPipeline
from studio import cli, images, provenance, video, weights
from studio.find import FaceFinder
from studio.motion.synthesis import synthesise
from studio.networks.depth import DepthNet
from tests import tiny

FRAMES = ("--seconds", 0.2, "--yaw", "0,10", "--no-sway", "--no-blink")


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a command as the shell would: call("reenact", …) -> exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["studio", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return run


@pytest.fixture
def loaded(monkeypatch):
    """How often the pipeline was loaded."""
    times = []
    monkeypatch.setattr(reenact, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(
        ReenactPipeline,
        "from_pretrained",
        classmethod(lambda cls, name, *, device=None: times.append(name) or tiny.reenact_pipeline()),
    )
    return times


@pytest.fixture
def photo(tmp_path):
    return images.save(tiny.image(72, 80, seed=7), tmp_path / "aunt.png")


@pytest.fixture
def clip(tmp_path):
    """A video of four frames, 25 a second, with a face (as `SureFinder` has it) in each."""
    with video.Writer(tmp_path / "driver.mp4", (72, 80), 25) as writer:
        for k in range(4):
            writer.write(tiny.image(72, 80, seed=8) * (1 - 0.05 * k), k / 25)
    return tmp_path / "driver.mp4"


def shown(path):
    return list(video.read(path))


def test_moves_as_one_says(call, loaded, photo, tmp_path):
    output, report, depth = tmp_path / "out" / "talking.mp4", tmp_path / "report.json", tmp_path / "depth.png"
    code, out, err = call(
        *("reenact", photo, *FRAMES, "--smile", "0,1", "--talk", "hello", "--consent", "-o", output),
        *("--report", report, "--depth", depth),
    )
    assert code == 0, err
    frames = shown(output)
    assert len(frames) == 5
    assert frames[0].pixels.shape == (3, 72, 80)
    said = json.loads(out)
    assert (said["frames"], said["output"]) == (5, str(output))
    found = json.loads(report.read_text())
    assert found["consent"] is True
    assert len(found["frames"]) == 5
    assert found["settings"]["talk"] == "hello"
    assert images.load(depth).pixels.shape == (3, 512, 512)
    assert "too small for the invisible mark" in err  # the photo has 80 px
    assert "5 frames, identity distance" in err
    assert [path.name for path in output.parent.iterdir()] == ["talking.mp4"]


def test_follows_a_video_or_a_saved_motion(call, loaded, photo, clip, tmp_path):
    code, out, err = call("reenact", photo, clip, "--consent", "-o", tmp_path / "a.mp4", "--start", 0.04, "--no-stitch")
    assert code == 0, err
    assert json.loads(out)["frames"] == 3
    assert shown(tmp_path / "a.mp4")[0].pixels.shape == (3, 256, 256)
    synthesise(seconds=0.2, yaw=(0, 15)).save(tmp_path / "turn.safetensors")
    arguments = ("reenact", photo, tmp_path / "turn.safetensors", "--consent", "-o", tmp_path / "b.gif")
    code, out, err = call(*arguments, "--start", 0.08)
    assert code == 0, err
    assert len(shown(tmp_path / "b.gif")) == 3
    assert "a .gif file holds none" in err


def test_settings_reach_the_pipeline(call, loaded, photo, tmp_path, monkeypatch):
    given = []
    original = ReenactPipeline.__call__
    monkeypatch.setattr(
        ReenactPipeline, "__call__", lambda self, *a, **named: given.append(named) or original(self, *a, **named)
    )
    call(
        *("reenact", photo, *FRAMES, "--consent", "-o", tmp_path / "a.mp4", "--absolute", "--region", "pose"),
        *("--expression", 0.5, "--size", 512, "--face", 0, "--no-stitch", "--quality", 40),
    )
    expected = {"consent": True, "relative": False, "region": "pose", "expression_scale": 0.5, "size": 512, "face": 0}
    assert expected.items() <= given[0].items()
    assert given[0]["stitch"] is False
    assert shown(tmp_path / "a.mp4")[0].pixels.shape == (3, 512, 512)


def test_the_file_says_that_it_is_synthetic(call, loaded, photo, tmp_path):
    """Marked in its frames, after H.264; and signed, with the consent."""
    code, _, err = call("reenact", photo, *FRAMES, "--consent", "--no-stitch", "-o", tmp_path / "a.mp4")
    assert code == 0, err
    found = provenance.verify(tmp_path / "a.mp4")
    assert found.mark.kind == "reenact"
    if provenance.reason_not(".mp4"):
        assert found.credentials == provenance.UNREAD
    else:
        assert found.credentials == provenance.INTACT
        assert found.operations[-1]["settings"]["consent"] is True
        assert found.operations[-1]["settings"]["driving"] == "made up"
    call("reenact", photo, *FRAMES, "--consent", "--no-stitch", "--no-credentials", "-o", tmp_path / "b.mp4")
    plain = provenance.verify(tmp_path / "b.mp4")
    assert plain.mark.kind == "reenact"
    assert plain.credentials in (provenance.NONE, provenance.UNREAD)


def test_nothing_without_consent(call, loaded, photo, tmp_path):
    code, _, err = call("reenact", photo, *FRAMES, "-o", tmp_path / "out" / "a.mp4")
    assert code == 2
    assert "consent" in err
    assert not (tmp_path / "out").exists()


def test_replaces_nothing_unasked(call, loaded, photo, tmp_path):
    output = tmp_path / "a.mp4"
    output.write_text("mine")
    arguments = ("reenact", photo, *FRAMES, "--consent", "-o", output)
    code, _, err = call(*arguments)
    assert (code, output.read_text()) == (2, "mine")
    assert "--overwrite" in err
    assert call(*arguments, "--overwrite")[0] == 0
    assert len(shown(output)) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "got neither a driving video"),
        (("DRIVER", "--yaw", "0,10"), "--yaw is for movements that are made up"),
        (("--yaw", "left"), "--yaw must be numbers"),
        (("--yaw", "90"), "yaw must be from -60"),
        (("--talk", "?!"), "letters"),
        (("--talk", "oh", "--start", 1), "--start is for a driving video"),
        (("DRIVER", "--start", 9), "start must lie before"),
        (("DRIVER", "--driving-face", -1), "driving_face must be"),
        (("MOTION", "--fps", 10), "fps must be left out with a motion"),
        (("MOTION", "--start", 5), "the motion must have frames"),
        (("DRIVER", "--start", 0.1, "--end", 0.05), "end must be after start"),
        (("DRIVER", "--audio", "nothing.wav"), "nothing.wav"),
        (("DRIVER", "--quality", "best"), "quality must be"),
        (("DRIVER", "--region", "nose"), "region must be"),
        (("DRIVER", "--size", 300), "size must be"),
        (("DRIVER", "--expression", 3), "expression_scale"),
        (("DRIVER", "-o", "DRIVER", "--overwrite"), "must not be an input"),
        (("DRIVER", "-o", "a.avi"), "one of .mp4, .webm, .gif"),
        (("DRIVER", "--report", "PHOTO"), "must not be an input"),
        (("DRIVER", "--depth", "depth.txt"), "rename it"),
        (("NOTES",), "must be a whole video"),
        (("gone.mp4",), "must be an existing video"),
        (("gone.safetensors",), "must be a file of `studio motion`"),
    ],
)
def test_everything_is_checked_before_anything_is_loaded(call, loaded, photo, clip, tmp_path, options, said):
    (tmp_path / "notes.mp4").write_text("no video")
    synthesise(seconds=0.2).save(tmp_path / "nod.safetensors")
    names = {"MOTION": tmp_path / "nod.safetensors", "DRIVER": clip, "PHOTO": photo, "NOTES": tmp_path / "notes.mp4"}
    names |= {name: tmp_path / name for name in ("a.avi", "depth.txt", "gone.mp4", "gone.safetensors", "nothing.wav")}
    output = () if "-o" in options else ("-o", tmp_path / "out.mp4")
    code, _, err = call("reenact", photo, *(names.get(one, one) for one in options), "--consent", *output)
    assert code == 2, err
    assert said in err
    assert err.count("\n") == 1
    assert loaded == []
    assert not (tmp_path / "out.mp4").exists()


def test_two_faces_need_a_choice_before_the_video_is_followed(call, loaded, clip, tmp_path, monkeypatch):
    monkeypatch.setattr("studio.reenactment.track", lambda *a, **k: pytest.fail("followed"))
    both = images.save(tiny.image(72, 160, seed=7), tmp_path / "both.png")
    code, _, err = call("reenact", both, clip, "--consent", "-o", tmp_path / "a.mp4")
    assert code == 2
    assert "shows 2" in err
    assert not (tmp_path / "a.mp4").exists()


def test_the_sound_of_the_driver_comes_along(call, loaded, photo, clip, tmp_path):
    """From where the stretch begins; another file's, or none, where that is asked for."""
    import av
    import numpy as np

    with av.open(str(tmp_path / "voice.wav"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=16000, layout="mono")
        tone = (8000 * np.sin(np.arange(16000) / 10)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, "s16", "mono")
        frame.sample_rate = 16000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    with video.Writer(tmp_path / "loud.mp4", (72, 80), 25, audio_from=tmp_path / "voice.wav") as writer:
        for one in shown(clip):
            writer.write(one.pixels, one.time)
    tracks = {}
    for name, driver, options in (
        ("driving", tmp_path / "loud.mp4", ("--start", 0.04)),
        ("none", tmp_path / "loud.mp4", ("--audio", "none")),
        ("file", clip, ("--audio", tmp_path / "voice.wav")),
        ("silent", clip, ()),
    ):
        code, _, err = call("reenact", photo, driver, "--consent", "-o", tmp_path / f"{name}.mp4", *options)
        assert code == 0, err
        tracks[name] = len(video.probe(tmp_path / f"{name}.mp4").audio)
    assert tracks == {"driving": 1, "none": 0, "file": 1, "silent": 0}


def test_depth_of_the_faces(call, monkeypatch, tmp_path):
    tiny.depth_net().save_pretrained(tmp_path / "depth")
    monkeypatch.setattr(weights, "path", lambda name: {"depth": tmp_path / "depth"}[name])
    monkeypatch.setattr(FaceFinder, "from_pretrained", classmethod(lambda cls: tiny.finder()))
    both = images.save(tiny.image(72, 160, seed=7), tmp_path / "both.png")
    code, out, err = call("faces", both, "--depth", tmp_path / "sheet.png")
    assert code == 0, err
    assert "2 faces" in out
    sheet = images.load(tmp_path / "sheet.png").pixels
    assert sheet.shape[2] > 2 * 256 and sheet.shape[1] > 2 * 256
    black = images.save(torch.zeros(3, 40, 40), tmp_path / "black.png")
    code, _, err = call("faces", black, "--depth", tmp_path / "none.png")
    assert (code, "not written" in err) == (0, True)
    assert not (tmp_path / "none.png").exists()


def test_the_depth_is_the_networks(tmp_path):
    """Near is light; what the network changes is seen."""
    from studio.depth import depths, picture

    pixels = tiny.image(72, 80, seed=7)
    faces = tiny.finder()(pixels)
    crops, deep = depths(pixels, faces, tiny.depth_net())
    plain = depths(pixels, faces, DepthNet(widths=(8, 8)))[1]
    assert crops.shape == (1, 3, 256, 256)
    assert deep.shape == (1, 1, 64, 64)
    assert not torch.allclose(deep, plain, atol=1e-3)
    drawn = picture(plain[0])
    assert drawn[0].flatten()[picture(plain[0])[0].argmax()] == drawn.max()
    nearest = plain[0, 0].flatten().argmin()
    row, column = divmod(int(nearest), 64)
    assert drawn[0, 8 * row + 4, 8 * column + 4] > 0.9
