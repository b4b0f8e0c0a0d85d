"""Reading age: who is found in a manifest, what is learned from people of known age, and what is written."""

import json

import numpy as np
import pytest
import torch

from studio import images
from studio.errors import InputError
from studio.networks.latent_space import LatentSpace
from studio.training import ages
from tests import tiny

PEOPLE = [
    {"id": {"bioguide": "A000001", "icpsr": 101}, "bio": {"birthday": "1950-02-03", "gender": "F"}},
    {"id": {"bioguide": "B000002"}, "bio": {"birthday": "1980-12-31", "gender": "M"}},
    {"id": {"bioguide": "C000003", "icpsr": 103}, "bio": {"gender": "M"}},
    {"id": {"bioguide": "D000004", "icpsr": 104}, "bio": {"birthday": "1960-06-06", "gender": "M"}},
]
MANIFEST = """set,file,licence,congress
aligned_clean,000101.jpg,,118
pairs,pairs/B000002_a.jpg,"portrait of the 119th US Congress",
pairs,pairs/B000002_b.jpg,"official portrait",
portraits,C000003_x.jpg,,119
portraits,000777_NOBODY.jpg,,119
aligned_clean,000104.jpg,,117
aligned_old,000101.jpg,,100
"""


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    (tmp_path / "people.json").write_text(json.dumps(PEOPLE))
    return tmp_path


def test_sitters_are_those_of_whom_birthday_and_congress_are_known(photos):
    first, second, _ = ages.find_sitters(photos, [photos / "people.json"])
    assert (first.path, first.person, first.age, first.woman) == (
        photos / "aligned_clean" / "000101.jpg",
        "A000001",
        2024 - 1950,
        True,
    )
    assert (second.path.name, second.person, second.age, second.woman) == (
        "B000002_a.jpg",
        "B000002",
        2026 - 1980,
        False,
    )


def test_what_is_linear_is_read_off_people_not_seen():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(300, 6, generator=rng, dtype=torch.float64) + 2
    truth = torch.stack([60 + 10 * x[:, 0], (x[:, 1] > 2).double()], 1)
    people = [str(i // 2) for i in range(300)]
    guess = ages.cross_validated(x, truth, people)
    found = ages.scores(truth, guess)
    assert found["age"]["r2"] > 0.85  # the ridge shrinks it
    assert found["presentation"]["told_right"] > 0.9
    slopes, offsets = ages.ridge(x, truth)
    assert float(slopes[0, 0]) == pytest.approx(10, rel=0.3)
    assert float((x @ slopes + offsets - truth).mean(0).abs().max()) < 1e-9


def test_a_person_is_never_seen_and_guessed_at_once():
    """Two photos of each person, alike to the bit, and ages that nothing else tells: seen, they would be known."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(40, 100, generator=rng, dtype=torch.float64).repeat_interleave(2, 0)
    truth = torch.randn(40, 2, generator=rng, dtype=torch.float64).repeat_interleave(2, 0)
    people = [f"{i // 2:02d}" for i in range(80)]
    honest = ages.scores(truth, ages.cross_validated(x, truth, people))["age"]["r2"]
    peeking = ages.scores(truth, ages.cross_validated(x, truth, [f"{i:02d}" for i in range(80)]))["age"]["r2"]
    assert honest < 0.3 < peeking


@pytest.mark.usefixtures("toy_networks")
def test_readings_and_direction_are_written_and_all_else_stays(photos):
    for folder, name in (("aligned_clean", "000101.jpg"), ("pairs", "B000002_a.jpg"), ("aligned_clean", "000104.jpg")):
        (photos / folder).mkdir(exist_ok=True)
        images.save(tiny.image(72, 72, seed=int(name[3:6])), photos / folder / name)
    folder = photos / "space"
    before = tiny.latent_space()
    before.readings.zero_()
    before.directions[-1].zero_()
    before.save_pretrained(folder)
    (folder / "fit.json").write_text(json.dumps({"faces": 3, "attributes": {"yaw": 1}, "effects": {"yaw": 2}}))
    summary = ages.fit_ages(folder, photos, [photos / "people.json"], report=lambda _: None)
    assert json.loads((folder / "fit.json").read_text()) == summary
    assert (summary["faces"], summary["attributes"]["yaw"], summary["effects"]["yaw"]) == (3, 1, 2)
    assert (summary["readings"]["photos"], summary["readings"]["people"]) == (3, 3)
    assert "age" in summary["effects"]["age"]
    after = LatentSpace.from_pretrained(folder)
    assert after.readings.any() and after.directions[-1].any()
    assert torch.equal(after.directions[:-1], before.directions[:-1].half().float())
    assert torch.equal(after.mean, before.mean)
    years = after.read(after.bank_embeddings)
    assert float(years.std()) == pytest.approx(summary["attributes"]["age"]["spread"], rel=1e-2)
    assert np.isfinite(years.numpy()).all()


@pytest.mark.usefixtures("toy_networks")
def test_nobody_known(photos):
    (photos / "people.json").write_text("[]")
    with pytest.raises(InputError, match="birthday"):
        ages.fit_ages(photos / "space", photos, [photos / "people.json"], report=lambda _: None)
