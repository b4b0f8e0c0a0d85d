"""Videos that are made here: marked, signed, and nothing left of one that went wrong."""

import pytest
import torch

from studio import images, provenance, synthetic_video, video, watermark
from studio.errors import ImageError
from studio.provenance import Operation
from tests import tiny

MADE = Operation("reenact", "moved", {"consent": True})


def frames(count=4, side=256):
    """A textured picture that becomes darker."""
    grain = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    picture = 0.7 * tiny.image(side, side) + 0.3 * grain
    return [(k / 25, picture * (1 - 0.02 * k)) for k in range(count)]


def test_every_frame_is_marked_and_none_is_changed_much():
    """A frame that shares the wave of another one, too; the picture stays within 40 dB."""
    given = frames(synthetic_video.MARKED_ANEW + 2)
    marked = list(synthetic_video.marked(iter(given), "reenact"))
    assert [moment for moment, _ in marked] == [moment for moment, _ in given]
    for k in (0, 1, synthetic_video.MARKED_ANEW - 1, synthetic_video.MARKED_ANEW):
        assert watermark.detect(marked[k][1]).kind == "reenact", k
        assert not watermark.detect(given[k][1]).found
        assert (marked[k][1] - given[k][1]).square().mean() < 1e-4


def test_the_mark_is_read_out_of_the_file(tmp_path):
    notes, lacking = synthetic_video.save(iter(frames()), tmp_path / "a.mp4", (256, 256), 25, MADE)
    assert notes == []
    found = provenance.verify(tmp_path / "a.mp4")
    assert found.mark.kind == "reenact"
    assert lacking == ("" if found.credentials == provenance.INTACT else lacking)
    assert len(list(video.read(tmp_path / "a.mp4"))) == 4
    notes, lacking = synthetic_video.save(iter(frames()), tmp_path / "b.webm", (256, 256), 25, MADE, quality="high")
    assert "a .webm file holds none" in lacking
    assert provenance.verify(tmp_path / "b.webm").mark.kind == "reenact"


def test_a_small_one_is_not_marked_and_says_so(tmp_path):
    lacking = synthetic_video.save(iter(frames(2, 64)), tmp_path / "a.mp4", (64, 64), 25, MADE, credentials=False)[1]
    assert lacking == "too small for the invisible mark, which needs 256 px"


def test_nothing_is_left_of_one_that_went_wrong(tmp_path):
    def broken():
        yield frames(1)[0]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        synthetic_video.save(broken(), tmp_path / "a.mp4", (256, 256), 25, MADE)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path):
    taken = images.save(tiny.image(), tmp_path / "a.png").rename(tmp_path / "a.mp4")
    before = taken.read_bytes()
    with pytest.raises(ImageError, match="say overwrite"):
        synthetic_video.save(iter(frames()), taken, (256, 256), 25, MADE)
    assert taken.read_bytes() == before

    def late():
        yield from frames()
        (tmp_path / "b.mp4").write_text("somebody else's")

    with pytest.raises(ImageError, match="say overwrite"):
        synthetic_video.save(late(), tmp_path / "b.mp4", (256, 256), 25, MADE)
    assert (tmp_path / "b.mp4").read_text() == "somebody else's"
    synthetic_video.save(iter(frames()), taken, (256, 256), 25, MADE, overwrite=True)
    assert len(list(video.read(taken))) == 4
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
