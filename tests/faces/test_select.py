from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from studio.errors import InputError, NoFaceError
from studio.faces.faces import Faces
from studio.faces.select import Least, one_face, parse, select
from tests.faces.synthetic import faces_of, head


@pytest.fixture
def three():
    return faces_of(head(height=40), head(height=90), head(height=60))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", [0, 1, 2]),
        ("largest", [1]),
        (2, [2]),
        (np.int64(2), [2]),
        ([2, 0], [2, 0]),
        ((1,), [1]),
        (np.array([0, 1]), [0, 1]),
        ([], []),
    ],
)
def test_choices(three, choice, expected):
    assert select(three, choice) == expected


def test_words_on_no_faces():
    assert select(Faces.empty(), "all") == select(Faces.empty(), "largest") == []


def test_those_that_are_pointed_at(three):
    assert select(replace(three, given=np.array([True, False, True])), "given") == [0, 2]
    with pytest.raises(InputError, match="no box is given"):
        select(three, "given")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("biggest", "largest"),
        (3, "0 to 2"),
        (-1, "in range"),
        ([0, 3], "0 to 2"),
        ([1, 1], "once"),
        (1.0, "integer"),
        (True, "integer"),
        (None, "integer"),
        (["all"], "integer"),
        ([[0]], "integer"),
        (np.array([True, False, True]), "integer"),
    ],
)
def test_refusals(three, choice, message):
    with pytest.raises(InputError, match=message):
        select(three, choice)


def test_an_index_on_no_faces_says_so():
    with pytest.raises(InputError, match="no face was found"):
        select(Faces.empty(), 0)


@pytest.mark.parametrize(
    ("text", "choice"), [("all", "all"), (" All ", "all"), ("largest", "largest"), ("0, 2", [0, 2]), (1, [1])]
)
def test_what_people_write(text, choice):
    assert parse(text) == choice


@pytest.mark.parametrize("text", ["everybody", "", "1;2", "0.5"])
def test_what_people_must_not_write(text):
    with pytest.raises(InputError, match="numbers such as 0,2"):
        parse(text)


def test_the_one_face_that_is_meant(three):
    assert one_face(three, 2, "a.jpg") == 2
    assert one_face(three[[1]], None, "a.jpg") == 0


@pytest.mark.parametrize(
    ("face", "words", "message"),
    [
        (None, {}, "one face must be chosen, a.jpg shows 3: pass face=0 for the largest"),
        (None, {"largest": "--face 0"}, "pass --face 0 for the largest"),
        (
            None,
            {"largest": "", "what": "the reference"},
            "the reference must show one face, a.jpg shows 3: cut one out",
        ),
        (3, {}, "face must be from 0 to 2 for a.jpg, got 3"),
        (-1, {}, "face must be from 0 to 2"),
        (True, {}, "face must be from 0 to 2 for a.jpg, got True"),
        (0, {"least": Least(99.0, "to be moved", "enlarge it")}, "99 px between its eyes to be moved.*: enlarge it"),
    ],
)
def test_no_one_face(three, face, words, message):
    with pytest.raises(InputError, match=message):
        one_face(three, face, "a.jpg", **words)


def test_no_face_at_all():
    with pytest.raises(NoFaceError, match=r"the photo must show a face, none was found in a\.jpg: cut it closer"):
        one_face(Faces.empty(), None, "a.jpg")
    with pytest.raises(NoFaceError, match=r"the reference must .*: look again"):
        one_face(Faces.empty(), 0, "a.jpg", what="the reference", lost="look again")
