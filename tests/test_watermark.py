"""The invisible mark: found after what people do to pictures, not found where it is not, and not seen."""

import pytest
import torch

from studio import images, watermark
from studio.errors import InputError
from tests import tiny
from tests.faces.synthetic import smooth_image


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Matrices this small gain nothing from a second one, and lose much where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures():
    """Smooth, busy, grey, dark and of two shapes."""
    rng = torch.Generator().manual_seed(3)
    shapes = [(512, 512), (300, 400), (400, 300), (512, 400)]
    found = [tiny.image(*shape, seed=seed) * 0.8 + 0.1 * smooth_image(*shape) for seed, shape in enumerate(shapes)]
    found[1] = (found[1] + 0.05 * torch.randn(found[1].shape, generator=rng)).clamp(0, 1)
    found[2] = found[2].mean(0, keepdim=True).expand(3, -1, -1).contiguous()
    found[3] = found[3] * 0.3
    return found


def rounded(pixels):
    return (pixels * 255).round() / 255


def jpeg(pixels, quality):
    return images.load(images.encode(pixels, ".jpg", quality=quality)).pixels


def resized(pixels, share):
    return images.resize(pixels, round(pixels.shape[1] * share), round(pixels.shape[2] * share))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("png", rounded),
        ("jpeg 85", lambda pixels: jpeg(pixels, 85)),
        ("three quarters", lambda pixels: rounded(resized(pixels, 0.75))),
        ("three quarters, jpeg 85", lambda pixels: jpeg(resized(pixels, 0.75), 85)),
        ("enlarged", lambda pixels: rounded(resized(pixels, 1.5))),
        ("brighter", lambda pixels: rounded((pixels * 1.1 + 0.02).clamp(0, 1))),
    ],
)
def test_survives(pictures, name, change):
    for number, pixels in enumerate(pictures):
        kind = watermark.KINDS[number % len(watermark.KINDS)]
        found = watermark.detect(change(watermark.embed(pixels, kind)))
        assert (found.found, found.kind) == (True, kind), (name, number, found)


def test_is_hardly_seen(pictures):
    for pixels in pictures:
        marked = watermark.embed(pixels, "generate")
        assert marked.min() >= 0 and marked.max() <= 1
        psnr = -10 * torch.log10((marked - pixels).square().mean())
        assert psnr > 38, psnr
        assert (marked - pixels).abs().max() < 0.1


def test_unmarked_pictures_have_none(pictures):
    scores = [watermark.detect(pixels).score for pixels in pictures]
    assert not any(watermark.detect(pixels).found for pixels in pictures)
    assert max(map(abs, scores)) < 5


def test_an_unmarked_score_is_a_standard_normal_variable():
    """So that a score of 6 comes once in a billion: noise of every colour, 24 pictures, mean 0 and spread 1."""
    rng = torch.Generator().manual_seed(5)
    noise = [torch.rand(3, side, side, generator=rng) for side in (200, 256, 400) for _ in range(8)]
    scores = torch.tensor([watermark.detect(images.resize(one, 300, 300)).score for one in noise])
    assert abs(scores.mean()) < 0.7
    assert 0.6 < scores.std() < 1.4
    assert scores.abs().max() < 4.5


def test_flat_pictures_have_no_mark():
    for value in (0.0, 0.5, 1.0):
        assert not watermark.detect(torch.full((3, 64, 64), value)).found


def test_losing_it_is_said(pictures):
    """Cropping and mirroring lose the mark; the docstring says so."""
    marked = watermark.embed(pictures[0], "generate")
    assert not watermark.detect(marked.flip(2)).found
    assert not watermark.detect(marked[:, 20:-20, 20:-20]).found


def test_is_the_same_every_time_and_leaves_the_input_alone(pictures):
    before = pictures[0].clone()
    assert torch.equal(watermark.embed(pictures[0], "reenact"), watermark.embed(pictures[0], "reenact"))
    assert torch.equal(before, pictures[0])


def test_the_pattern_never_changes():
    """Pictures marked by earlier versions must be read by later ones: if this fails, change the code back."""
    pattern = watermark._pattern()
    assert len(pattern.where) == 37387
    assert int((pattern.sign * (torch.arange(len(pattern.sign)) % 97)).sum()) == -1019
    assert int((pattern.owner * (torch.arange(len(pattern.owner)) % 89)).sum()) == 25503393
    assert watermark.KINDS == ("generate", "upsample", "frontalize", "reenact", "restore", "enhance_video", "edit")


def test_refuses(pictures):
    with pytest.raises(InputError, match="kind must be one of"):
        watermark.embed(pictures[0], "draw")
    with pytest.raises(InputError, match="256 px"):
        watermark.embed(torch.zeros(3, 200, 300), "generate")
    with pytest.raises(InputError, match="one at a time"):
        watermark.detect(torch.zeros(1, 3, 300, 300))


@pytest.mark.photos
@pytest.mark.slow
def test_on_real_photographs(photos):
    """None is found in forty unmarked photographs; JPEG 85 takes no bit from six marked ones."""
    files = images.find_images([photos / "portraits", photos / "old"])[::4][:40]
    assert not [file for file in files if watermark.detect(images.load(file).pixels).found]
    for file in files[:6]:
        marked = watermark.embed(images.load(file).pixels, "frontalize")
        assert watermark.detect(jpeg(marked, 85)).kind == "frontalize", file
