"""`studio motion`: arguments in, a motion and its curves out."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from studio import cli
from studio.motion.motion import Motion
from studio.motion.plot import HEIGHT, WIDTH, curves, draw
from studio.motion.synthesis import synthesise
from tests.motion.people import generated, moved
from tests.motion.test_motion import some


@pytest.fixture
def call(monkeypatch, capsys):
    """call(…) -> exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["studio", "motion", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, *capsys.readouterr()

    return run


def test_makes_a_motion_up(call, tmp_path):
    file, plot = tmp_path / "new" / "motion.safetensors", tmp_path / "motion.png"
    options = ("--yaw", "0,25,-25,0", "--smile", "0,1", "--talk", "hello there", "--seconds", 2, "--fps", 20)
    code, out, err = call("-o", file, *options, "--no-blink", "--no-sway", "--plot", plot)
    assert code == 0, err
    wanted = synthesise(
        yaw=(0, 25, -25, 0), smile=(0, 1), talk="hello there", seconds=2, fps=20, blink=False, sway=False
    )
    np.testing.assert_array_equal(Motion.load(file).mesh, wanted.mesh)
    told = json.loads(out)
    assert told["frames"] == 40 and told["without_face"] == 0
    assert told["ranges"]["yaw"] == pytest.approx([-25, 25], abs=1)
    with Image.open(plot) as drawn:
        assert drawn.size == draw(wanted).size


def test_nothing_is_written_over(call, tmp_path):
    file, plot = tmp_path / "motion.safetensors", tmp_path / "motion.png"
    assert call("-o", file, "--plot", plot)[0] == 0
    before = file.read_bytes()
    code, _, err = call("-o", file, "--seed", 1)
    assert code == 2 and "--overwrite" in err
    code, _, err = call("-o", tmp_path / "other.safetensors", "--plot", plot)
    assert code == 2 and not (tmp_path / "other.safetensors").exists()
    assert file.read_bytes() == before
    assert call("-o", file, "--seed", 1, "--plot", plot, "--overwrite")[0] == 0
    assert file.read_bytes() != before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--yaw", "0,left"), "--yaw must be numbers"),
        (("--yaw", "0,100"), "yaw must be from"),
        (("--start", "1"), "--start needs a video"),
        (("clip.mp4", "--gaze-x", "1"), "--gaze-x is for motions without a video"),
        (("clip.mp4", "--talk", "hello"), "--talk is for motions without a video"),
    ],
)
def test_refuses(call, tmp_path, options, words):
    code, _, err = call("-o", tmp_path / "motion.safetensors", *options)
    assert code == 2 and words in err
    assert not list(tmp_path.iterdir())


def test_refuses_other_files(call, tmp_path):
    code, _, err = call("-o", tmp_path / "motion.npz")
    assert code == 2 and ".safetensors" in err
    code, _, err = call(tmp_path / "missing.mp4", "-o", tmp_path / "motion.safetensors")
    assert code == 2 and "missing.mp4" in err


def test_the_plot_shows_lost_frames_and_cuts():
    plain = np.asarray(draw(some(40)))
    assert plain.shape[1] == WIDTH and plain.shape[0] > 5 * HEIGHT
    motion = some(40)
    motion.presence[10:20] = 0
    lost = np.asarray(draw(motion))
    motion.cuts[30] = True
    cut = np.asarray(draw(motion))
    assert (plain != lost).any() and (lost != cut).any()
    assert list(curves(motion)["gaze"]) == ["to the right", "down"]
    assert draw(some(1)).size == draw(motion).size


@pytest.mark.weights
@pytest.mark.slow
def test_follows_a_face_through_a_video(call, tmp_path):
    pytest.importorskip("av", reason="the extra `video` is not installed")
    from studio import video

    frames, _, roll = moved(generated()[0])
    with video.Writer(tmp_path / "clip.mp4", (300, 420), 25) as writer:
        for seconds, pixels in frames:
            writer.write(pixels, seconds)
    file = tmp_path / "motion.safetensors"
    code, out, err = call(tmp_path / "clip.mp4", "-o", file, "--start", 0.2, "--end", 1)
    assert code == 0, err
    told, motion = json.loads(out), Motion.load(file)
    assert told["frame"] == [420, 300] and told["without_face"] == 0
    np.testing.assert_allclose(motion.times, np.arange(5, 25) / 25, atol=1e-3)
    turned = motion.angles[:, 2] - roll[5:25]
    assert np.abs(turned - turned.mean()).max() < 1
    with video.Writer(tmp_path / "empty.mp4", (64, 64), 25) as writer:
        for k in range(3):
            writer.write(torch.full((3, 64, 64), 0.5), k / 25)
    code, _, err = call(tmp_path / "empty.mp4", "-o", tmp_path / "no.safetensors")
    assert code == 2 and "must show a face" in err
