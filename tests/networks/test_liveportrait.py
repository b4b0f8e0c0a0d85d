"""LivePortrait's networks: the layout of their files, what the authors' own give, toys."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from studio.convert.torch import FAMILIES, filled
from studio.networks.liveportrait import (
    LivePortraitAppearance,
    LivePortraitGenerator,
    LivePortraitMotion,
    LivePortraitWarping,
    degrees,
    grid,
)
from tests import parity, tiny

# Our family -> the network in the reference.
NAMES = {
    "liveportrait-appearance": "appearance_feature_extractor",
    "liveportrait-motion": "motion_extractor",
    "liveportrait-warping": "warping_module",
    "liveportrait-generator": "spade_generator",
    "liveportrait-stitching": "stitching_retargeting.stitching",
    "liveportrait-lip": "stitching_retargeting.lip",
    "liveportrait-eye": "stitching_retargeting.eye",
}
# SHA-256 of a line "name shape" for every tensor, sorted.
LAYOUTS = {
    "liveportrait-appearance": "5a2525ccfd90d4e4475960838076eead3477e63d4065a4381fcde3e0a8f9937e",
    "liveportrait-motion": "ceb96aee9b5f27532d089cb7cfa5e7bb6ff968acbbfd4427e7df503a73d08f45",
    "liveportrait-warping": "2630a8a2c224367a63e341c3dde6b8caa2c9ce7c1a970150a15c8c56399639d4",
    "liveportrait-generator": "57f639ae91d89e4828b46f4149d3150f66751678b302025dff87b5ed6d85a94f",
    "liveportrait-stitching": "4c067e8fcbd4a0f99ff8f165cabe74e51dadc9f07dd8e1267faebd033e702afa",
    "liveportrait-lip": "5b96c46260c5fa51385f9a86d2789f5658a2c7fb3fcc8707a5a66ded2229f325",
    "liveportrait-eye": "06dd035fe371ae6bed460c97e147b7d993696b3b937346ff16be5f8bd1d992f2",
}


def published(name):
    """Tensors of the published file, as the references fill them: the table that `convert.torch.read` gives."""
    shapes = json.loads((parity.FOLDER / "liveportrait.json").read_text())["tensors"][NAMES[name]]
    kinds = {"int64": torch.int64, "float32": torch.float32}
    tensors = {key: parity.filled(key, tuple(shape), kinds[kind]) for key, (shape, kind) in shapes.items()}
    mark = FAMILIES[name].mark
    return {mark: tensors} if mark.startswith("retarget_") else tensors


def real(name):
    return filled(published(name), FAMILIES[name], parity.FOLDER / name)


def digest(shapes):
    lines = "".join(f"{name} {tuple(shape)}\n" for name, shape in sorted(shapes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_is_pinned(name):
    """The published one but for spectral normalization; `test_parity` loads the published names strictly."""
    family = FAMILIES[name]
    with torch.device("meta"):
        net = family.network(**family.options)
    assert digest({key: value.shape for key, value in net.state_dict().items()}) == LAYOUTS[name]


@parity.needs_references
@pytest.mark.slow
def test_parity():
    wanted = parity.outputs("liveportrait")
    x = torch.from_numpy(np.random.RandomState(0).uniform(0, 1, (1, 3, 256, 256)).astype(np.float32))
    found = {}
    with torch.inference_mode():
        volume = real("liveportrait-appearance")(x)
        found["feature_3d"] = volume[:, ::4, ::4, ::8, ::8]
        motion = real("liveportrait-motion")(x)
        found |= {f"motion.{name}": getattr(motion, name) for name in ("pitch", "yaw", "roll")}
        found |= {"motion.t": motion.shift, "motion.exp": motion.expression, "motion.kp": motion.points}
        torch.testing.assert_close(motion.scale, wanted["motion.scale"], atol=1e-5, rtol=0)
        warped = real("liveportrait-warping")(volume, wanted["kp_source"], wanted["kp_driving"])
        found["warp.out"] = warped.features[:, ::32, ::8, ::8]
        found["warp.occlusion_map"] = warped.visible[:, :, ::8, ::8]
        found["warp.deformation"] = warped.deformation[:, ::4, ::8, ::8]
        for name in ("stitching", "lip", "eye"):
            net = real(f"liveportrait-{name}")
            given = np.random.RandomState(1).standard_normal((2, net.config.inputs)).astype(np.float32)
            found[f"{name}.out"] = net(torch.from_numpy(given))
        picture = real("liveportrait-generator")(warped.features)[:, :, ::16, ::16]
    for name, value in found.items():
        share = parity.share_of_spread(value, wanted[name])
        print(f"liveportrait {name}: largest difference {share:.1e} of the reference's standard deviation")
        assert share < 1e-4
    # Random vectors stand where the largest singular value is looked for, so that weights become up to 60 times as
    # large: in float64 the same network is 1.1e-3 from the reference too, which is what rounding did to that one.
    error = (picture - wanted["image"]).abs() / wanted["image"].std()
    mean, largest = float(error.square().mean().sqrt()), float(error.max())
    print(f"liveportrait image: root mean square of the difference {mean:.1e}, largest {largest:.1e}")
    assert mean < 1e-3
    assert largest < 2e-3


# ------------------------------------------------------------------------------------------------------------- toys


def toys():
    size = {"width": 8, "halvings": 2, "most": 16}
    return {
        "appearance": LivePortraitAppearance(**size, channels=4, depth=4, blocks=1),
        "motion": LivePortraitMotion(points=3, depths=(1, 1), widths=(8, 16), bins=6),
        "warping": LivePortraitWarping(
            points=3, channels=4, depth=4, **size, motion_width=4, motion_halvings=2, motion_most=16, compressed=2
        ),
        "generator": LivePortraitGenerator(**size, hidden=8),
    }


@pytest.fixture
def nets():
    with tiny.seeded():
        return {name: parity.fill(net) for name, net in toys().items()}


def test_from_a_still_to_a_moved_picture(nets):
    still = tiny.image(32, 32)[None]
    points = torch.rand(1, 3, 3) - 0.5
    with torch.inference_mode():
        volume = nets["appearance"](still)
        assert volume.shape == (1, 4, 4, 8, 8)
        same, moved = (nets["warping"](volume, points, points + shift) for shift in (0, 0.4))
        pictures = [nets["generator"](one.features) for one in (same, moved)]
    assert pictures[0].shape == (1, 3, 64, 64)
    assert float((pictures[0] - pictures[1]).abs().max()) > 1e-3
    # Where nothing moves, every place is sampled where it is.
    torch.testing.assert_close(same.deformation[0], grid(4, 8, 8, volume), atol=1e-5, rtol=0)


def test_the_motion_of_a_head(nets):
    with torch.inference_mode():
        motion = nets["motion"](tiny.image(32, 32)[None])
    assert motion.points.shape == motion.expression.shape == (1, 9)
    assert motion.yaw.shape == (1, 6)


def test_degrees_by_hand():
    scores = torch.full((2, 66), -100.0)
    scores[0, 33], scores[1, 0] = 100, 100
    assert degrees(scores).tolist() == [1.5, -97.5]


@pytest.mark.parametrize("name", ["appearance", "motion", "warping", "generator"])
def test_saves_and_loads(nets, name, tmp_path):
    net = nets[name]
    net.save_pretrained(tmp_path)
    loaded = type(net).from_pretrained(tmp_path)
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in loaded.state_dict().items())
