"""The basis of expressions does what its names say, and numbers read it back."""

import numpy as np
import pytest

from studio.errors import InputError
from studio.faces.mean_mesh import MEAN_MESH
from studio.motion.expression import NAMES, basis, expressed, eyes, neutral, opening, smile
from studio.motion.head import HEAD, RIGID, HeadPoses, rotations
from studio.training.expression import MIRROR, completed, differences, gap, relative_error, symmetrical


def one(**amounts):
    return expressed(amounts)


def test_the_committed_basis():
    assert basis().shape == (len(NAMES), 468, 3)
    assert basis().dtype == np.float32
    for name, offset in zip(NAMES, basis(), strict=True):
        assert 0.02 < np.linalg.norm(offset, axis=1).max() < 0.1, name
        if name != "wink":
            np.testing.assert_allclose(offset, symmetrical(offset), atol=1e-6, err_msg=name)
        if name != "brow":  # its outer ends lie among the rigid points
            assert np.abs(offset[RIGID]).max() < 0.005, name


def test_lips_of_the_neutral_face_touch():
    assert abs(neutral()[14, 1] - neutral()[13, 1]) < 1e-5
    assert opening(neutral()[None])[0] < 0.5 * opening(HEAD[None])[0]


def test_each_expression_does_what_its_name_says():
    still = one()
    assert opening(one(mouth=1))[0] > 0.25
    assert opening(one(mouth=0.5))[0] == pytest.approx((opening(one(mouth=1))[0] + opening(still)[0]) / 2, abs=0.03)
    assert smile(one(smile=1))[0] > 1.12 * smile(still)[0]
    assert abs(opening(one(smile=1))[0] - opening(still)[0]) < 0.02
    assert one(smile=1)[0, 61, 1] < still[0, 61, 1] - 0.01
    assert smile(one(pucker=1))[0] < 0.75 * smile(still)[0]
    assert one(pucker=1)[0, 0, 2] < still[0, 0, 2] - 0.02
    assert eyes(one(eyes=1))[0] < 0.02
    assert eyes(one(wink=1))[0] == pytest.approx(eyes(still)[0] / 2, rel=0.02)
    assert np.abs(one(wink=1) - still)[0, MEAN_MESH[:, 0] > 0.5].max() == 0
    assert one(brow=1)[0, 105, 1] == pytest.approx(still[0, 105, 1] - 0.03, abs=1e-4)


def test_amounts_over_time_and_other_faces():
    face = HEAD * 1.1
    local = expressed({"mouth": np.array([0, 0.5, 1]), "smile": 0.3}, face)
    assert local.shape == (3, 468, 3)
    np.testing.assert_allclose(local[1] - local[0], local[2] - local[1], atol=1e-6)
    np.testing.assert_allclose(local[0], face + 0.3 * basis()[0], atol=1e-6)
    with pytest.raises(InputError, match="'frown'"):
        expressed({"frown": 1})


def test_readings_hang_on_neither_pose_nor_size():
    local = one(mouth=0.4, smile=0.5, eyes=0.3)
    poses = HeadPoses(np.full(1, 77, np.float32), rotations(np.array([[30, -20, 50]])), np.ones((1, 3), np.float32))
    for read in (opening, smile, eyes):
        np.testing.assert_allclose(read(poses.place(local)), read(local), rtol=1e-3)
        with pytest.raises(InputError, match="mesh"):
            read(local[0])


def test_completed_cuts_off_what_an_expression_does_not_move():
    rng = np.random.default_rng(0)
    noise = {name: symmetrical(0.001 * rng.standard_normal((468, 3))) for name in ("smile", "mouth", "brow")}
    noise["smile"][[61, 291]] += [[-0.01, -0.01, 0], [0.01, -0.01, 0]]
    noise["mouth"][[14, 17]] += [0, 0.02, 0]
    noise["brow"][:, 1] -= 0.004
    made = dict(zip(NAMES, completed(noise), strict=True))
    high, low = MEAN_MESH[:, 1] < 0.5, MEAN_MESH[:, 1] > 0.5
    assert np.abs(made["smile"][high]).max() == 0
    assert np.abs(made["brow"][low]).max() == 0
    assert abs(gap(made["smile"])) < 1e-6
    assert gap(made["mouth"]) == pytest.approx(0.075, abs=1e-4)
    assert (MIRROR[MIRROR] == np.arange(468)).all()


def test_relative_error():
    offsets = np.zeros((4, 468, 3))
    offsets[:, 5, 0] = [1, 1, 2, 2]
    assert relative_error(offsets) == pytest.approx(np.std([1, 1, 2, 2], ddof=1) / 2 / 1.5, abs=1e-3)


@pytest.mark.weights
@pytest.mark.slow
def test_generated_people_smile_as_the_basis_does():
    smiling = differences(3, lambda text: None)["smile"].mean(0)
    around = np.hypot(*(MEAN_MESH[:, :2] - [0.5, 0.73]).T) < 0.15
    alike = np.corrcoef(smiling[around, 0], basis()[NAMES.index("smile"), around, 0])[0, 1]
    assert alike > 0.9
