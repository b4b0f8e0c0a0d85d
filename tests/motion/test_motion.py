from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio.errors import InputError
from studio.motion.head import HEAD, head_poses, rotations
from studio.motion.motion import Motion


def some(count: int = 3) -> Motion:
    turned = rotations(np.linspace(0, 20, 3 * count).reshape(count, 3))
    return Motion(
        times=np.arange(count) / 25,
        presence=np.ones(count, np.float32),
        scale=np.full(count, 200, np.float32),
        rotation=turned,
        translation=np.full((count, 3), 128, np.float32),
        mesh=np.repeat(HEAD[None], count, 0),
        gaze=np.zeros((count, 2), np.float32),
        cuts=np.zeros(count, bool),
        frame=np.array([256, 256]),
    )


def test_saved_and_loaded_is_the_same(tmp_path):
    motion = some()
    motion.save(tmp_path / "motion.safetensors")
    again = Motion.load(tmp_path / "motion.safetensors")
    for name in ("times", "presence", "scale", "rotation", "translation", "mesh", "gaze", "cuts", "frame"):
        np.testing.assert_array_equal(getattr(again, name), getattr(motion, name))


def test_placed_meshes_have_the_motions_poses():
    motion = some()
    np.testing.assert_allclose(head_poses(motion.placed).rotation, motion.rotation, atol=1e-4)


def test_a_slice_is_a_motion():
    assert len(some()[1:]) == 2


@pytest.mark.parametrize("broken", [{"times": np.zeros(3)}, {"gaze": np.zeros((3, 3))}, {"scale": np.full(3, np.nan)}])
def test_refuses_broken_arrays(broken):
    with pytest.raises(InputError, match="a motion"):
        replace(some(), **broken)


def test_refuses_other_files(tmp_path):
    save_file({"times": np.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("other", "text", "missing"):
        with pytest.raises(InputError, match="a motion must"):
            Motion.load(tmp_path / f"{name}.safetensors")
