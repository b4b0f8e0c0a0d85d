"""Turned faces and the training on them, at toy size: pairs, every term, that it learns and resumes exactly."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.errors import InputError
from studio.identity.encoder import IdentityEncoder
from studio.networks.frontalizer import Frontalizer
from studio.training import turned as module
from studio.training.frontalizer import Drawing, FrontalTrainer, symmetry_loss
from studio.training.identities import PairMaker
from studio.training.run import export
from studio.training.turned import FRONT, VIEWS, TurnedFaces, Turner, load_turned, make_shard, turn_faces
from tests import tiny

SMALL = {
    "size": 64,
    "whole": 64,
    "widths": (8, 8, 8, 8),
    "patch": 16,
    "patch_widths": (8, 8),
    "features": 16,
    "patch_features": 8,
    "mesh_features": 8,
    "hidden": 32,
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Sums are the same to the bit only when they are made in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def turner():
    head = tiny.image_head(start=2)
    maker = PairMaker(tiny.varied_generator(), head, tiny.face_mesh(), IdentityEncoder(tiny.identity_net()))
    return Turner(maker, tiny.latent_space(), tiny.latent_reader())


def test_a_shard_depends_on_its_number_alone(turner, tmp_path):
    one, two, other = (
        load_file(make_shard(turner, number, tmp_path / name, size=2))
        for name, number in (("a", 3), ("b", 3), ("a", 4))
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["latents"], other["latents"])
    assert one["faces"].shape == (2, VIEWS, 3, module.SIZE, module.SIZE)
    assert one["faces"].dtype == torch.uint8
    assert one["latents"].shape == (2, 2, 8)
    assert not list((tmp_path / "a").glob("*.part"))


def test_the_stored_latents_are_those_of_the_front(turner, tmp_path):
    shard = load_file(make_shard(turner, 0, tmp_path, size=2))
    again = turner.measure(turner.draw(shard["latents"][1:]))
    assert torch.allclose(again["descriptors"], shard["descriptors"][1, FRONT], atol=1e-5)
    assert not torch.allclose(again["descriptors"], shard["descriptors"][1, FRONT + 1], atol=1e-3)


def test_turning_keeps_the_person_better_than_the_direction_alone(turner):
    structure = turner.maker.generator.mapping(torch.randn(5, 8, generator=torch.Generator().manual_seed(1)))
    direction = turner.space.directions[turner.space.number("yaw")]
    turned = turner.turned(structure, 8.0)
    with torch.no_grad():
        person = turner.reader(structure)
        plain, kept = ((turner.reader(w) - person).norm(dim=1) for w in (structure + 8 * direction, turned))
    assert (kept < 0.9 * plain).all()
    start = turner.space(structure + 8 * direction)
    way = turner.space(turned) - start
    along = torch.nn.functional.normalize(start - turner.space(structure), dim=1)
    assert way.norm(dim=1).min() > 1e-3
    assert (way * along).sum(1).abs().max() < 1e-3  # at right angles to the turn


def test_cached_faces_are_taken_in(turner, tmp_path):
    faces = {"images": torch.randint(0, 255, (3, 3, 256, 256)).byte(), "latents": torch.randn(3, 2, 8)}
    (tmp_path / "faces").mkdir()
    save_file(faces, tmp_path / "faces" / "faces-00000.safetensors")
    turn_faces(turner, tmp_path / "faces", tmp_path, report=lambda _: None)
    shard = load_file(tmp_path / "turned-faces-00000.safetensors")
    assert shard["faces"].shape == (3, 1, 3, module.SIZE, module.SIZE)
    assert torch.equal(shard["latents"][:, 1], faces["latents"][:, 1])  # the texture stays
    with pytest.raises(InputError, match="train faces"):
        turn_faces(turner, tmp_path / "none", tmp_path)


def test_pictures_of_somebody_else_are_not_used(tmp_path):
    people = 30
    descriptors = torch.zeros(people, VIEWS, 4)
    descriptors[5, 3, 0] = 1.0  # a side that shows another person
    presence, yaw = torch.ones(people, VIEWS), torch.zeros(people, VIEWS)
    presence[6, 2] = 0.0  # no face
    yaw[7, FRONT] = 20.0  # a front that is none
    rows = {"faces": torch.zeros(people, VIEWS, 3, 8, 8).byte(), "mesh": torch.zeros(people, VIEWS, 468, 3).half()}
    rows |= {"descriptors": descriptors, "yaw": yaw, "presence": presence, "latents": torch.zeros(people, 2, 8)}
    save_file(rows, tmp_path / "turned-00000.safetensors")
    loaded = load_turned(tmp_path)
    counts = torch.bincount(loaded.person, minlength=people)
    assert counts[5:8].tolist() == [VIEWS - 1, VIEWS - 1, 0]
    assert len(loaded.person) == people * VIEWS - 2 - VIEWS
    assert loaded.held.nonzero()[:, 0].tolist() == [0, 25]
    with pytest.raises(InputError, match="train turned"):
        load_turned(tmp_path / "none")


# ---- the training


def faces_of_people(people=60, views=2):
    """The front's first three numbers are the picture's colour, and the person is a linear reading of the rest."""
    rng = torch.Generator().manual_seed(0)
    space, reader = tiny.latent_space(), tiny.latent_reader()
    latents = space.latents(torch.randn(people, 2, 8, generator=rng))
    person = torch.arange(people).repeat_interleave(views)
    colour = ((space(latents[:, 0])[:, :3] / 3).tanh() / 2 + 0.5)[person]
    faces = (colour[..., None, None] * 255).byte().expand(-1, -1, 64, 64).contiguous()
    with torch.no_grad():
        fronts = reader(latents[:, 0])
    mesh = torch.rand(len(person), 468, 3, generator=rng).half()
    held = torch.arange(people) % 10 == 0
    return TurnedFaces(faces, mesh, fronts[person], person, latents, fronts, held), space, reader


def trainer(folder, drawing=None, **settings):
    turned, space, reader = faces_of_people()
    settings = {"steps": 200, "batch": 12, "learning_rate": 4e-3, "config": SMALL, "report": lambda _: None} | settings
    return FrontalTrainer(turned, space, reader, folder, drawing, **settings)


def drawing():
    return Drawing(tiny.varied_generator(), tiny.image_head(start=2), tiny.identity_net())


def test_learns(tmp_path):
    training = trainer(tmp_path)
    before = training.measure()
    training.run()
    after = training.measure()
    assert after["structure"] < 0.9 * before["structure"]
    assert after["person"] < 0.9 * before["person"]
    with torch.no_grad():  # no pathway has died: what it gives differs from face to face
        assert training.average.body(training.turned.faces[:20].float() / 255 - 0.5).std(0).mean() > 0.01
    assert "held out" in (tmp_path / "log.txt").read_text()


def test_all_terms_are_there_and_drawn_ones_reach_the_network(tmp_path):
    training = trainer(tmp_path, drawing(), drawn_every=2)
    training.step = 1000  # the critic counts
    assert set(training.losses(1000)[0]) == {"latent", "person", "critic"}
    terms, _, _ = training.losses(1001)
    assert set(terms) == {"latent", "person", "critic", "pixels", "symmetry", "identity"}
    for name in ("pixels", "symmetry", "identity", "critic", "person"):
        training.net.zero_grad()
        terms[name].backward(retain_graph=True)
        assert training.net.leave.weight.grad.abs().sum() > 0, name


def test_terms_can_be_left_out_and_only_those(tmp_path):
    training = trainer(tmp_path, drawing(), drawn_every=2, without=("critic", "symmetry"))
    training.step = 1000
    assert set(training.losses(1001)[0]) == {"latent", "person", "pixels", "identity"}
    with pytest.raises(InputError, match="must be of person, critic, pixels, symmetry, identity, got 'latent'"):
        trainer(tmp_path, without=("latent",))


def test_resuming_is_exact(tmp_path):
    whole, half = (trainer(tmp_path / name, drawing(), drawn_every=2) for name in ("whole", "half"))
    for _ in range(4):
        whole.update()
    for _ in range(2):
        half.update()
    half.save()
    rest = trainer(tmp_path / "half", drawing(), drawn_every=2)
    rest.resume()
    for _ in range(2):
        rest.update()
    assert rest.step == 4
    for prefix, part in whole.parts().items():
        for (name, a), b in zip(part.state_dict().items(), rest.parts()[prefix].state_dict().values(), strict=True):
            assert torch.equal(a, b), prefix + name
    export(tmp_path / "half", tmp_path / "out")
    assert Frontalizer.from_pretrained(tmp_path / "out").config.size == 64


def test_symmetry_sees_one_side_that_differs():
    even = torch.rand(1, 3, 256, 128)
    even = torch.cat([even, even.flip(3)], 3)
    odd = even.clone()
    odd[..., 140:180] = 0
    assert symmetry_loss(even) < 1e-6
    assert symmetry_loss(odd) > 0.05
