"""What the moving of stills is learnt from, and its two trainings: examples, mirrors, steps, and going on exactly."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from studio import weights
from studio.errors import InputError
from studio.identity.encoder import IdentityEncoder
from studio.motion.dense import CELLS, Still, warp
from studio.motion.head import HEAD, HeadPoses, head_poses, rotations
from studio.motion.retarget import LOWER_LIP, UPPER_LIP
from studio.networks.depth import DepthNet
from studio.networks.identity import IdentityNet
from studio.networks.reenactor import Reenactor
from studio.training import acted as acting
from studio.training import moved as moving
from studio.training import reenactor as drawing
from studio.training.acted import ActedFaces, load_acted, person
from studio.training.depth import DepthTrainer, follow, turned_pairs
from studio.training.identities import PairMaker
from studio.training.moved import ExampleMaker, RealFaces, closed, make_moved, near_face, opening
from studio.training.reenactor import ReenactorTrainer
from studio.training.turned import Turner, write
from tests import tiny
from tests.motion.moving import MESH

SIDE = acting.SIZE


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Sums are the same to the bit only when they are made in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def meshes(*turns):
    """The mean face turned by yaw and pitch, (V,468,3) in sides of the crop."""
    pose = head_poses(MESH[None])
    turn = rotations(np.array([[yaw, pitch, 0] for yaw, pitch in turns]))
    return HeadPoses(pose.scale, turn @ pose.rotation, pose.translation).place(pose.remove(MESH[None]))


def people(count=2):
    """Each with three views, the last of them unusable for the first person."""
    faces = torch.stack([tiny.image(SIDE, SIDE, seed=seed) for seed in range(3 * count)])
    faces = (faces * 255).byte().view(count, 3, 3, SIDE, SIDE)
    mesh = torch.from_numpy(meshes((0, 0), (20, 5), (-12, 0))).half().expand(count, -1, -1, -1)
    usable = torch.ones(count, 3, dtype=torch.bool)
    usable[0, 2] = False
    return ActedFaces(faces, mesh, usable)


def real():
    return RealFaces((torch.stack([tiny.image(SIDE, SIDE, seed=9)]) * 255).byte(), meshes((5, 0)))


@pytest.fixture(scope="module")
def maker():
    return ExampleMaker(people(), real(), tiny.depth_net())


@pytest.fixture(scope="module")
def cache(maker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moved")
    for shard in range(2):
        rng = torch.Generator().manual_seed(shard)
        write(moving.shard_path(folder, shard), [maker.example(rng) for _ in range(3)])
    return folder


# ---- acting


@pytest.fixture(scope="module")
def turner():
    head = tiny.image_head(start=2)
    built = PairMaker(tiny.varied_generator(), head, tiny.face_mesh(), IdentityEncoder(tiny.identity_net()))
    return Turner(built, tiny.latent_space(), tiny.latent_reader())


def test_a_person_acts_as_the_seed_says(turner):
    latents = torch.stack([turner.maker.generator.mapping(torch.randn(1, 8))] * 2, 1)
    one, same, other = (person(turner, latents, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one["faces"].shape == (acting.VIEWS, 3, SIDE, SIDE)
    assert one["faces"].dtype == torch.uint8
    assert one["mesh"].shape == one["again"].shape == (acting.VIEWS, 468, 3)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert torch.equal(one["faces"][0], other["faces"][0])  # the first is as drawn
    assert not torch.equal(one["faces"][1], other["faces"][1])
    assert not torch.equal(one["faces"][0], one["faces"][1])


def test_views_of_somebody_else_or_without_a_face_are_not_used(tmp_path):
    rows = {"faces": torch.zeros(2, 3, 3, 8, 8).byte(), "mesh": torch.zeros(2, 3, 468, 3).half()}
    vectors, presence = torch.zeros(2, 3, 4), torch.ones(2, 3)
    vectors[0, 2, 0], presence[1, 1] = 1.0, 0.1
    save_file(rows | {"descriptors": vectors, "presence": presence}, tmp_path / "acted-00000.safetensors")
    assert load_acted(tmp_path).usable.tolist() == [[True, True, False], [True, False, True]]
    with pytest.raises(InputError, match="train acted"):
        load_acted(tmp_path / "none")
    with pytest.raises(InputError, match="people must be 1 or more"):
        acting.make_acted(tmp_path, 0)


# ---- examples


def test_an_example_is_a_still_its_flow_and_what_it_must_show(maker):
    for seed in range(6):
        example = maker.example(torch.Generator().manual_seed(seed))
        assert {name: tuple(part.shape) for name, part in example.items()} == {
            "still": (3, SIDE, SIDE),
            "target": (3, SIDE, SIDE),
            "depth": (1, 64, 64),
            "source": (2, CELLS, CELLS),
            "geometry": (4, CELLS, CELLS),
            "weight": (1, CELLS, CELLS),
        }
        assert example["still"].dtype == example["target"].dtype == torch.uint8
        assert all(part.isfinite().all() for part in example.values())
        again = maker.example(torch.Generator().manual_seed(seed))
        assert all(torch.equal(example[name], again[name]) for name in example)


def test_both_kinds_come_and_the_unusable_view_never(maker):
    assert {(a, b) for who, a, b in maker.pairs if who == 0} == {(0, 1), (1, 0)}
    assert len([pair for pair in maker.pairs if pair[0] == 1]) == 6
    examples = [maker.example(torch.Generator().manual_seed(seed)) for seed in range(12)]
    returned = [bool((example["weight"] == 1).all()) for example in examples]
    assert 2 <= sum(returned) <= 10
    faces = maker.acted.faces.flatten(0, 1)
    real_ones = 0
    for example, back in zip(examples, returned, strict=True):
        real_ones += bool((example["target"] == maker.real.faces[0]).all())
        known = [bool((example["target"] == face).all()) for face in (*faces, maker.real.faces[0])]
        assert any(known)  # the target is a picture as it was, never a warped one
        assert not known[2]
        if not back:
            assert any(bool((example["still"] == face).all()) for face in faces)
    assert real_ones


def test_the_flow_of_a_returned_still_brings_it_back_on_the_face(maker):
    mesh, face = maker.real.mesh[0], maker.real.faces[0].float() / 255
    elsewhere = maker.elsewhere(mesh, np.zeros((468, 3), np.float32), torch.Generator().manual_seed(3))
    assert np.abs(elsewhere - mesh).max() > 0.01
    still, _ = maker.moved(face, mesh, elsewhere)
    example = maker.made(still, elsewhere, face, mesh)
    back = warp(example["still"][None].float() / 255, example["source"][None].float())[0]
    middle = near_face(mesh)[0].float() == 1
    middle = torch.nn.functional.interpolate(middle[None, None].float(), (SIDE, SIDE))[0, 0] > 0
    before, after = ((picture - face).abs()[:, middle].mean() for picture in (still, back))
    assert after < 0.6 * before


def test_lips_of_a_moved_still_do_not_cross(maker):
    for seed in range(8):
        rng = torch.Generator().manual_seed(seed)
        change = np.zeros((468, 3), np.float32)
        change[LOWER_LIP, 1] = -0.05  # much further shut than the mouth is open
        moved = maker.elsewhere(MESH, change, rng)
        local = head_poses(moved[None]).remove(moved[None])[0]
        assert (local[LOWER_LIP, 1] - local[UPPER_LIP, 1]).min() > -2e-3
    apart = closed(HEAD[None])
    np.testing.assert_array_equal(apart, HEAD[None])
    assert opening(HEAD) > 0


def test_weights_fall_away_from_the_face():
    shown = near_face(MESH)[0].float()
    assert shown[70, 64] == 1
    assert shown[:4, :4].max() < 0.1
    assert shown.min() >= 0


def test_a_cache_is_filled_once_and_by_its_numbers(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(moving, "SHARD", 2)
    monkeypatch.setattr(moving, "load_acted", lambda folder: people())
    told = []
    make_moved(tmp_path / "a", 3, tmp_path, None, None, told.append)
    first = load_file(tmp_path / "a" / "moved-00001.safetensors")
    assert len(list((tmp_path / "a").glob("moved-*.safetensors"))) == 2
    assert told[-1].startswith("4 of 4")
    (tmp_path / "a" / "moved-00001.safetensors").unlink()
    kept = (tmp_path / "a" / "moved-00000.safetensors").stat().st_mtime_ns
    make_moved(tmp_path / "a", 4, tmp_path, None, None, told.append)
    again = load_file(tmp_path / "a" / "moved-00001.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert (tmp_path / "a" / "moved-00000.safetensors").stat().st_mtime_ns == kept
    assert not list((tmp_path / "a").glob("*.part"))
    with pytest.raises(InputError, match="count must be 1 or more"):
        make_moved(tmp_path, 0, tmp_path, None, None)


# ---- the reenactor


@pytest.fixture
def toy_identity(monkeypatch):
    monkeypatch.setattr(weights, "path", lambda name: name)
    monkeypatch.setattr(IdentityNet, "from_pretrained", classmethod(lambda cls, folder: tiny.identity_net()))


def trainer(folder, cache, batch=2, **settings):
    return ReenactorTrainer(tiny.reenactor(), folder, 40, batch, 2e-3, lambda _: None, cache=cache, **settings)


def states(training):
    nets = {"net": training.net, "average": training.average}
    nets |= {f"critic{k}": critic.net for k, critic in enumerate(training.critics)}
    return {f"{name}.{key}": value for name, net in nets.items() for key, value in net.state_dict().items()}


def test_mirrored_examples_have_the_flow_of_the_mirrored_still(toy_identity, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "recolour", lambda faces, rng: faces)
    monkeypatch.setattr(drawing, "GREY", 0.0)
    training = trainer(tmp_path, cache, batch=6)
    stored = [{k: v[i].float() for k, v in shard.items()} for shard in training.shards for i in range(3)]
    mirrored = 0
    for step in range(3):
        rows = training.examples(step)
        shown = warp(rows["still"], rows["source"])
        for i in range(6):
            found = [
                (part, side)
                for part in stored
                for side in (False, True)
                if torch.equal(rows["still"][i], (part["still"].flip(2) if side else part["still"]) / 255)
            ]
            ((one, side),) = {id(part): (part, side) for part, side in found}.values()
            mirrored += side
            wanted = warp(one["still"][None] / 255, one["source"][None])[0]
            assert (shown[i] - (wanted.flip(2) if side else wanted)).abs().max() < 1e-3
            for name in ("target", "depth", "geometry", "weight"):
                part = one[name] / 255 if name == "target" else one[name]
                assert torch.equal(rows[name][i], part.flip(2) if side else part), name
    assert 3 < mirrored < 15


def test_the_mirror_of_a_flow_is_the_flow_of_the_mirror():
    """Geometry itself has no side: a mesh mirrored by its twin points gives the mirrored flow."""
    twin = np.linalg.norm(MESH[:, None, :2] * [-1, 1] + [1, 0] - MESH[None, :, :2], axis=2).argmin(1)
    assert (twin[twin] == np.arange(468)).all()
    mesh = meshes((18, 6))[0]
    mirror = mesh[twin] * [-1, 1, 1] + [1, 0, 0]
    ours = MESH[twin] * [-1, 1, 1] + [1, 0, 0]
    flow, other = Still(MESH).flow(mesh[None]), Still(ours).flow(mirror[None].astype(np.float32))
    back = other.source.flip(3)
    back = torch.cat([1 - back[:, :1], back[:, 1:]], 1)
    covered = (flow.covered > 0.9) & (other.covered.flip(3) > 0.9)
    apart = ((back - flow.source).norm(dim=1, keepdim=True) * SIDE)[covered]
    assert apart.mean() < 0.3
    assert apart.quantile(0.99) < 3


def test_a_step_hangs_on_its_number_alone(toy_identity, cache, tmp_path):
    one, other = trainer(tmp_path / "a", cache), trainer(tmp_path / "b", cache)
    a, b, c = one.examples(7), other.examples(7), one.examples(8)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["still"], c["still"])
    for name in ("still", "target"):
        assert a[name].dtype == torch.float32
        assert 0 <= a[name].min() <= a[name].max() <= 1


def test_a_step_changes_the_weights_of_network_and_critics(toy_identity, cache, tmp_path):
    training = trainer(tmp_path, cache)
    before = {name: value.clone() for name, value in states(training).items()}
    told = training.update()
    assert set(told) == {"pixels", "detail", "person", "critics", "hinge"}
    assert all(np.isfinite(value) for value in told.values())
    after = states(training)
    for part in ("net", "average", "critic0", "critic1"):
        names = [name for name in after if name.startswith(f"{part}.")]
        changed = [name for name in names if not torch.equal(before[name], after[name])]
        assert len(changed) > 0.6 * len(names), part
    plain = trainer(tmp_path / "plain", cache, judged=False)
    assert set(plain.update()) == {"pixels", "detail", "person"}


def test_critics_that_know_something_are_heard(toy_identity, cache, tmp_path):
    training = trainer(tmp_path, cache)
    assert float(training.losses(training.examples(0))["critics"]) == 0
    for critic in training.critics:
        critic.updates = 1000
    terms = training.losses(training.examples(0))
    for name, term in terms.items():
        training.net.zero_grad()
        term.backward(retain_graph=True)
        assert training.net.out.weight.grad.abs().sum() > 0, name


def test_it_learns(toy_identity, cache, tmp_path):
    training = trainer(tmp_path, cache, judged=False)
    training.steps, training.learning_rate = 16, 3e-2  # the warm-up keeps the rate far below that

    def cost():
        with torch.no_grad():
            return float(training.losses(training.examples(500))["pixels"])

    before = cost()
    training.run()
    assert cost() < 0.9 * before
    assert isinstance(Reenactor.from_pretrained(tmp_path / "reenactor"), Reenactor)


def test_resuming_the_reenactor_is_exact(toy_identity, cache, tmp_path):
    whole, half = (trainer(tmp_path / name, cache) for name in ("whole", "half"))
    for training in (whole, half):
        training.critics[0].updates = training.critics[1].updates = 1000
    for _ in range(4):
        whole.update()
    for _ in range(2):
        half.update()
    half.save()
    rest = trainer(tmp_path / "half", cache)
    rest.resume()
    for _ in range(2):
        rest.update()
    assert rest.step == 4
    wanted, found = states(whole), states(rest)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_an_empty_cache_is_refused(toy_identity, tmp_path):
    with pytest.raises(InputError, match="train moved"):
        trainer(tmp_path, tmp_path)


# ---- the depth


def depth_trainer(folder, steps=40):
    heads = torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0)).half()
    given = {"acted": people(), "heads": heads}
    return DepthTrainer(tiny.depth_net(), folder, steps, 2, 3e-3, lambda _: None, **given)


def test_pairs_are_turned_apart_and_usable():
    assert turned_pairs(people()) == [
        (0, 0, 1),
        (0, 1, 0),
        (1, 0, 1),
        (1, 0, 2),
        (1, 1, 0),
        (1, 1, 2),
        (1, 2, 0),
        (1, 2, 1),
    ]
    still = people()
    flat = ActedFaces(still.faces, still.mesh[:, :1].expand(-1, 3, -1, -1), still.usable)
    assert turned_pairs(flat) == []


def test_pixels_are_followed_to_where_the_turned_head_has_them():
    both = meshes((0, 0), (15, -8))
    poses = head_poses(both)
    side = 16
    rng = torch.Generator().manual_seed(0)
    depth = torch.rand(1, 1, side, side, generator=rng)
    places = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(places, places)
    points = np.stack([x, y, depth[0, 0].numpy()], -1).reshape(1, -1, 3).astype(np.float32)
    first, second = (
        HeadPoses(*(part[k : k + 1] for part in (poses.scale, poses.rotation, poses.translation))) for k in (0, 1)
    )
    wanted = second.place(first.remove(points))[0, :, :2].reshape(side, side, 2)
    np.testing.assert_allclose(follow(depth, [poses])[0].numpy(), wanted, atol=1e-5)


def test_depth_terms_and_a_step(tmp_path):
    training = depth_trainer(tmp_path)
    before = {name: value.clone() for name, value in training.net.state_dict().items()}
    told = training.update()
    assert set(told) == {"inside", "around", "smooth", "head"}
    assert all(value > 0 and np.isfinite(value) for value in told.values())
    assert sum(not torch.equal(before[n], v) for n, v in training.net.state_dict().items()) > 0.8 * len(before)
    for name, term in training.losses(training.examples(1)).items():
        training.net.zero_grad()
        term.backward(retain_graph=True)
        assert training.net.out.weight.grad.abs().sum() > 0, name


def test_depth_is_held_to_the_mesh_inside_the_face(tmp_path):
    training = depth_trainer(tmp_path, steps=60)
    before = float(training.losses(training.examples(999))["inside"].detach())
    training.run()
    assert float(training.losses(training.examples(999))["inside"].detach()) < 0.6 * before
    assert isinstance(DepthNet.from_pretrained(tmp_path / "depth"), DepthNet)


def test_resuming_the_depth_is_exact(tmp_path):
    whole, half = (depth_trainer(tmp_path / name) for name in ("whole", "half"))
    for _ in range(4):
        whole.update()
    for _ in range(2):
        half.update()
    half.save()
    rest = depth_trainer(tmp_path / "half")
    rest.resume()
    for _ in range(2):
        rest.update()
    for a, b in ((whole.net, rest.net), (whole.average, rest.average)):
        assert all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())
