"""Albums: who is grouped, what is set aside and why, and what may leave the machine in a table."""

import csv
import io
import json

import pytest
import torch

from studio import images
from studio.benchmarks.provenance import FINDER
from studio.errors import InputError
from studio.identity import album
from studio.identity.album import COLUMNS, THRESHOLD, AlbumFace, AlbumMaker, grouped, why_aside
from tests import tiny
from tests.ui.toy import ToyAlbum


def face(photo, vector, reason=""):
    return AlbumFace(photo, 0, (0, 0, 9, 9), 40.0, torch.zeros(3, 8, 8).byte(), torch.tensor(vector), reason)


def test_groups_and_distances():
    faces = [face(0, [0.0, 0.0]), face(1, [9.0, 9.0]), face(2, [0.3, 0.0]), face(3, [0.0, 0.0], "too small: 3 px")]
    found, people = grouped(faces, 0.5)
    assert people == [[0, 2], [1]]
    assert [one.distance for one in found] == [pytest.approx(0.3), None, pytest.approx(0.3), None]
    assert grouped([face(0, [0.0], "too small: 3 px")], 0.5)[1] == []


def test_an_album(tmp_path):
    """Two faces in every photo; the same photo twice is the same two people."""
    same = images.save(images.load(tiny.sharp_photo()), tmp_path / "same.png")
    (tmp_path / "notes.jpg").write_text("no photo")
    photos = [tiny.sharp_photo(), same, torch.full((3, 64, 64), 0.5), tmp_path / "notes.jpg"]
    done = []
    found = ToyAlbum()(photos, 1e-3, on_photo=lambda *given: done.append(given))
    assert done == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.names == ["image", "same.png", "image", "photo 4"]
    assert found.people == [[0, 2], [1, 3]]
    assert found.without_face == [2]
    assert list(found.failed) == [3] and "notes.jpg" in found.failed[3]
    assert all(one.crop.shape == (3, album.CROP, album.CROP) and one.crop.dtype == torch.uint8 for one in found.faces)
    assert "4 faces in 4 photos: 2 people, 2 of them in more than one photo." in found.sentence
    assert "No face was found in 1 photo. 1 file could not be read." in found.sentence
    assert "no evidence of who somebody is" in found.sentence
    assert ToyAlbum()(photos[:2], 1e-3, names=["a", "b"]).names == ["a", "b"]


def test_vectors_are_those_of_the_encoder():
    maker = ToyAlbum()
    photo = tiny.sharp_photo()
    with torch.inference_mode():
        wanted = maker.encoder.embed(photo, maker.finder(photo).mesh)
    found = maker.look(images.load(photo))
    assert torch.equal(torch.stack([one.vector for one in found]), wanted)


def test_poor_faces_are_set_aside_with_the_reason():
    maker = ToyAlbum(tiny.TinyFace)
    found = maker([tiny.sharp_photo()])
    assert [one.reason for one in found.faces[:2]] == ["", ""]
    assert found.faces[2].reason.startswith("too small: ")
    assert found.set_aside == [2]
    assert "Set aside: 1 too small." in found.sentence
    assert "Groups can be wrong" not in found.sentence  # nobody was put together
    assert why_aside(40, album.LEAST_DETAIL) == ""
    assert why_aside(40, album.LEAST_DETAIL / 2).startswith("too blurred: ")


def test_a_blurred_face_is_set_aside():
    photo = tiny.sharp_photo()
    soft = images.resize(images.resize(photo, 24, 35), *photo.shape[1:])
    assert all(one.reason.startswith("too blurred") for one in ToyAlbum().look(images.load(soft)))


def test_tables_hold_no_vectors():
    found = ToyAlbum()([tiny.sharp_photo(), tiny.sharp_photo(seed=1)], names=["=cmd()", "b.png"])
    text = json.dumps(found.to_dict())
    assert "vector" not in text and len(text) < 3000
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["photo"] for row in rows] == ["'=cmd()", "'=cmd()", "b.png", "b.png"]
    assert [row["face"] for row in rows] == ["0", "1", "0", "1"]
    assert found.to_dict()["people"] == len(found.people) == max(int(row["person"]) for row in rows)


def test_refuses():
    with pytest.raises(InputError, match="at least one photo"):
        ToyAlbum()([])
    with pytest.raises(InputError, match="threshold"):
        ToyAlbum()([tiny.sharp_photo()], 0)
    with pytest.raises(InputError, match="threshold"):
        ToyAlbum()([tiny.sharp_photo()], float("nan"))
    with pytest.raises(InputError, match="names must be 1"):
        ToyAlbum()([tiny.sharp_photo()], names=[])


def test_the_committed_figures_are_what_the_benchmark_writes():
    figures = album.figures()
    assert figures["benchmark"] == "album"
    sure = [row["threshold"] for row in figures["sweep"] if row["b_cubed_precision"] >= 0.99]
    assert figures["threshold"] == THRESHOLD == max(sure)
    assert (figures["people"], figures["photos"] + sum(figures["set_aside"].values())) == (206, 412)
    said = album.error_rates(THRESHOLD)
    assert f"{1 - figures['scores']['precision']:.0%} of the pairs put together were two people" in said
    assert set(figures["provenance"]["weights"]) == {"identity", *FINDER}


@pytest.mark.weights
@pytest.mark.slow
def test_generated_people(rng):
    """Three generated people, each seen twice: as they are, and smaller and darker."""
    from studio import Generator, weights

    generator = Generator.from_pretrained(weights.path("generator"))
    photos = []
    with torch.inference_mode():
        for z in torch.randn(3, 1, 512, generator=rng):
            person = (generator(generator.latents(z, truncation=0.7))[0] / 2 + 0.5).clamp(0, 1)
            photos += [images.resize(person, 512, 512), 0.8 * images.resize(person, 200, 200)]
    found = AlbumMaker.from_pretrained()(photos)
    assert found.people == [[0, 1], [2, 3], [4, 5]]
