"""Kill -9 at random moments; the large one is a command, see docs/archive.md."""

from tests.batch.torture import SEEN, torture


def test_no_kill_loses_halves_or_doubles_a_file(tmp_path):
    found = torture(tmp_path, files=30, kills=6)
    assert found["kills"] >= 3 and len(set(found[SEEN])) >= 2, found  # it was killed, and at different moments
