"""Pictures drawn larger tile by tile: no seams, exact sizes, the photo's own tone."""

from __future__ import annotations

import pytest
import torch

from studio import images
from studio.background import MARGIN, OVERLAP, SCALES, Upsampler, keep_light, spans
from studio.errors import InputError
from studio.networks.rrdb import RRDBNet
from studio.networks.span import SPAN
from studio.tone import apply_tone, luma, tone_curve
from tests import tiny


def near_sighted():
    """A network whose pixels depend on fewer than `MARGIN` px around: with it, tiles must not show at all."""
    with tiny.seeded():
        net = RRDBNet(width=4, growth=2, blocks=0).eval()
    tiny.fill_randomly(net, 0.2)
    return net


@pytest.mark.parametrize(("length", "tile"), [(40, 64), (64, 64), (65, 64), (333, 64), (1000, 128), (17, 128)])
@pytest.mark.parametrize("scale", SCALES)
def test_the_shares_of_all_tiles_sum_to_one(length, tile, scale):
    size = int(length * scale + 0.5)
    total = torch.zeros(size)
    cut = spans(length, size, tile)
    for span in cut:
        assert 0 <= span.start < span.stop <= length
        assert span.stop - span.start <= tile
        assert 0 <= span.box[0] <= span.box[1] <= span.stop - span.start + 1e-9
        total[span.first : span.last] += span.weight
    torch.testing.assert_close(total, torch.ones(size))
    assert len({span.stop - span.start for span in cut}) == 1


def test_a_border_inside_the_photo_counts_nothing():
    left, right = spans(100, 400, 64)
    assert float(left.weight[-4 * MARGIN :].abs().max()) == 0
    assert float(right.weight[: 4 * MARGIN].abs().max()) == 0
    assert left.stop - right.start >= OVERLAP
    assert float(left.weight[0]) == float(right.weight[-1]) == 1


@pytest.mark.parametrize("scale", SCALES)
def test_tiles_give_what_the_whole_picture_gives(scale):
    photo = tiny.image(150, 97)
    whole = Upsampler(near_sighted(), tile=512)(photo, scale)
    tiled = Upsampler(near_sighted(), tile=64)(photo, scale)
    assert tiled.shape == (3, int(150 * scale + 0.5), int(97 * scale + 0.5))
    assert float(whole.std()) > 0.02
    torch.testing.assert_close(tiled, whole, atol=2e-3, rtol=0)  # Pillow's windows are cut at the tile's border


def test_four_times_is_the_networks_own_picture_in_the_photos_light():
    photo, net = tiny.image(150, 97), near_sighted()
    with torch.inference_mode():
        drawn = net(photo[None])[0].clamp(0, 1)
    made = Upsampler(net, tile=64)(photo)
    torch.testing.assert_close(made, keep_light(drawn, photo).clamp(0, 1), atol=1e-5, rtol=0)
    means = [torch.nn.functional.interpolate(x[None], (4, 3), mode="area") for x in (photo, drawn, made)]
    assert float((means[2] - means[0]).abs().mean()) < 0.5 * float((means[1] - means[0]).abs().mean())


def test_the_network_never_sees_more_than_a_tile():
    seen, net, told = [], near_sighted(), []
    net.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    Upsampler(net, tile=64, on_tile=lambda done, total: told.append((done, total)))(tiny.image(200, 130), 2)
    assert max(max(shape) for shape in seen) <= 64
    assert told == [(i + 1, len(seen)) for i in range(len(seen))]


def test_a_sepia_print_stays_sepia():
    grey = tiny.image(80, 80).mean(0)
    sepia = torch.stack([0.9 * grey + 0.1, 0.85 * grey + 0.05, 0.7 * grey])
    curve = tone_curve(sepia)
    drawn = Upsampler(near_sighted())(sepia, 2)[None]
    assert float(luma(drawn).std()) > 0.02
    off = (drawn - apply_tone(luma(drawn), curve)).abs()
    assert float(off.median()) < 1e-6
    assert float((off > 1e-3).float().mean()) < 0.01  # where a channel is cut at 0 or 1
    flat = Upsampler(near_sighted())(grey.expand(3, -1, -1), 2)
    assert torch.equal(flat[0], flat[1])
    assert torch.equal(flat[0], flat[2])


def test_a_batch_of_one_is_a_photo():
    photo = tiny.image(40, 30)
    upsampler = Upsampler(near_sighted())
    assert torch.equal(upsampler(photo[None], 2)[0], upsampler(photo, 2))


def test_what_is_refused():
    upsampler = Upsampler(near_sighted())
    with pytest.raises(InputError, match=r"one of 1, 1\.5, 2, 3, 4, got 5"):
        upsampler(tiny.image(40, 30), 5)
    with pytest.raises(InputError, match="pass one photo"):
        upsampler(torch.zeros(2, 3, 40, 30))
    with pytest.raises(InputError, match="at least 64 px, got 32"):
        Upsampler(near_sighted(), tile=32)
    with pytest.raises(InputError, match="span, realesrgan, got 'esrgan'"):
        Upsampler.from_pretrained("esrgan")


@pytest.mark.parametrize("net", [RRDBNet(width=6, growth=3, blocks=1), SPAN(width=6, blocks=2)])
def test_networks_save_and_load(net, tmp_path):
    tiny.fill_randomly(net.eval())
    net.save_pretrained(tmp_path)
    loaded, x = type(net).from_pretrained(tmp_path), tiny.image(9, 7)[None]
    assert net(x).shape == (1, 3, 36, 28)
    torch.testing.assert_close(loaded(x), net(x))


def bends(picture, columns):
    """Mean second difference in x at some columns, and everywhere: a seam is a jump that no slope explains."""
    found = (picture[..., 2:] - 2 * picture[..., 1:-1] + picture[..., :-2]).abs().mean((0, 1))
    return float(found[torch.tensor(columns) - 1].mean()), float(found.mean())


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("name", ["span", "realesrgan"])
def test_no_seams_on_real_weights(name, repository):
    photo = images.load(repository / "examples" / "old-print.jpg").pixels[:, 200:264, :160]
    network = Upsampler.from_pretrained(name).network
    tiled = Upsampler(network, tile=64)(photo)
    cut = spans(160, 640, 64)
    borders = [4 * x + i for span in cut for x in (span.start, span.stop) if 0 < x < 160 for i in (-1, 0)]
    at_borders, inside = bends(tiled, borders)
    print(f"{name}: bend at {len(cut) - 1} borders {at_borders:.5f}, everywhere {inside:.5f}")
    assert at_borders <= 1.05 * inside
