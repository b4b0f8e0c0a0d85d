"""The restorer: shapes, size, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from studio.errors import InputError
from studio.networks.restorer import START_BLOCK, Restorer, draw_prior
from tests import tiny


@pytest.fixture
def net():
    return tiny.restorer(size=64, feature_channels=12, latent_dim=10)


def test_shapes_and_types(net):
    restored = net(torch.rand(2, 3, 64, 64))
    assert restored.features.shape == (2, 12, 8, 8)
    assert restored.latent.shape == (2, 10)
    assert restored.estimate.shape == (2, 3, 64, 64)
    assert {part.dtype for part in (restored.features, restored.latent, restored.estimate)} == {torch.float32}


def test_half_precision_goes_in_and_float_comes_out(net):
    restored = net.to(torch.bfloat16)(torch.rand(1, 3, 64, 64, dtype=torch.bfloat16))
    assert {part.dtype for part in (restored.features, restored.latent, restored.estimate)} == {torch.float32}


def test_batch_equals_loop(net):
    x = torch.rand(2, 3, 64, 64)
    together, alone = net(x), [net(one[None]) for one in x]
    for name in ("features", "latent", "estimate"):
        expected = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), expected, atol=1e-5, rtol=0)


def test_heads_are_in_units_of_the_statistics(net):
    x = torch.rand(1, 3, 64, 64)
    raw = net.normalised(x)
    with torch.no_grad():
        net.features_mean.fill_(3.0)
        net.features_std.fill_(2.0)
        net.latent_mean.fill_(-1.0)
        net.latent_std.fill_(0.5)
    restored = net(x)
    torch.testing.assert_close(restored.features, 2 * raw.features + 3)
    torch.testing.assert_close(restored.latent, raw.latent / 2 - 1)
    torch.testing.assert_close(restored.estimate, x + raw.estimate)


def test_gradients_reach_every_parameter(net):
    restored = net(torch.rand(1, 3, 64, 64))
    (restored.features.sum() + restored.latent.sum() + restored.estimate.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def moved(net):
    """The spatial path as after some training."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in net.to_spatial:
            layer.weight.copy_(0.3 * torch.randn(layer.weight.shape, generator=rng))
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=rng))
    return net


def test_a_new_spatial_path_changes_nothing():
    x, generator, head = torch.rand(1, 3, 256, 256), tiny.generator(), tiny.image_head(start=5)
    plain, spatial = tiny.restorer()(x), tiny.restorer(spatial_channels=(8, 8))(x)
    assert [part.shape for pair in spatial.spatial for part in pair] == [(1, 8, 64, 64)] * 4
    assert not plain.spatial
    torch.testing.assert_close(draw_prior(generator, head, spatial), draw_prior(generator, head, plain))


def test_the_prior_is_the_generators_picture_scaled_and_shifted():
    """Against the same thing written out: block, scale and shift, block, scale and shift, head."""
    generator, head = tiny.generator(), tiny.image_head(start=5)
    parts = moved(tiny.restorer(spatial_channels=(8, 8)))(torch.rand(2, 3, 256, 256))
    w, x = generator.slots(parts.latent), parts.features
    for block, pair in zip((3, 4), parts.spatial, strict=True):
        x = generator.run_blocks(x, w, block, block + 1)
        scale, shift = (F.interpolate(part, size=x.shape[2], mode="bilinear", align_corners=False) for part in pair)
        x = x * (1 + scale) + shift
    wanted = head(x, w)
    torch.testing.assert_close(draw_prior(generator, head, parts), wanted, atol=1e-4, rtol=1e-4)
    with torch.no_grad():  # one face at a time
        torch.testing.assert_close(draw_prior(generator, head, parts), wanted, atol=1e-4, rtol=1e-4)


def test_a_new_fine_path_changes_nothing():
    x, generator, head = torch.rand(1, 3, 256, 256), tiny.generator(), tiny.image_head(start=6)
    plain, fine = tiny.restorer(spatial_channels=(8, 8))(x), tiny.restorer(spatial_channels=(8, 8), fine_channels=8)(x)
    assert [part.shape for part in fine.spatial[2]] == [(1, 8, 256, 256)] * 2
    torch.testing.assert_close(draw_prior(generator, head, fine), draw_prior(generator, head, plain))


def test_the_fine_path_scales_and_shifts_the_map_that_the_head_is_given():
    generator, head = tiny.generator(), tiny.image_head(start=6)
    net = moved(tiny.restorer(spatial_channels=(8, 8), fine_channels=8))
    torch.nn.init.normal_(net.to_fine[-1].weight, std=0.3)
    parts = net(torch.rand(2, 3, 256, 256))
    w, x = generator.slots(parts.latent), parts.features
    for block, pair in zip((3, 4, 5), parts.spatial, strict=True):
        x = generator.run_blocks(x, w, block, block + 1)
        scale, shift = (F.interpolate(part, size=x.shape[2], mode="bilinear", align_corners=False) for part in pair)
        x = x * (1 + scale) + shift
    torch.testing.assert_close(draw_prior(generator, head, parts), head(x, w), atol=1e-4, rtol=1e-4)


def test_the_fine_path_is_the_third():
    with pytest.raises(InputError, match=r"fine_channels need two spatial_channels.*got \(8,\)"):
        tiny.restorer(spatial_channels=(8,), fine_channels=8)


def test_the_fine_path_tells_neighbouring_pixels_apart():
    net = tiny.restorer(spatial_channels=(8, 8), fine_channels=8)
    torch.nn.init.normal_(net.to_fine[-1].weight, std=0.3)
    scale, _ = net(torch.rand(1, 3, 256, 256)).spatial[2]
    assert (scale[..., 1:] - scale[..., :-1]).abs().amax((1, 2)).min() > 0  # no two columns are the same


def test_new_styles_and_a_new_dictionary_change_nothing():
    x, generator, head = torch.rand(2, 3, 256, 256), tiny.generator(), tiny.image_head(start=5)
    plain, full = tiny.restorer()(x), tiny.restorer(style_slots=9, atoms=3)
    full.dictionary.draw(generator, START_BLOCK)
    parts = full(x)
    assert plain.styles is None
    assert parts.styles.shape == (2, 9, 8)
    torch.testing.assert_close(draw_prior(generator, head, parts, full.dictionary), draw_prior(generator, head, plain))


def test_styles_go_to_the_last_slots():
    """Against the same thing written out: W+ of the latent, and the last nine slots moved."""
    generator, head = tiny.generator(), tiny.image_head(start=5)
    net = tiny.restorer(style_slots=9)
    torch.nn.init.normal_(net.to_styles[1].weight)
    with torch.no_grad():
        net.latent_std.fill_(0.5)
        parts = net(torch.rand(2, 3, 256, 256))
        w = generator.slots(parts.latent).clone()
        assert parts.styles.abs().max() > 0.01
        w[:, 7:] += parts.styles
        wanted = head(generator.run_blocks(parts.features, w, 3, 5), w)
        torch.testing.assert_close(draw_prior(generator, head, parts), wanted, atol=1e-4, rtol=1e-4)


def test_gradients_pass_through_the_prior():
    generator, head = tiny.generator(), tiny.image_head(start=5)
    net = moved(tiny.restorer(spatial_channels=(8, 8), style_slots=9, atoms=3))
    net.dictionary.latents.normal_()
    net.dictionary.draw(generator, START_BLOCK)
    drawn = draw_prior(generator, head, net(torch.rand(1, 3, 256, 256)), net.dictionary)
    drawn.square().mean().backward()
    own = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert own == ["to_residual.weight", "to_residual.bias"]  # the estimate alone is not drawn


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 32, 32), (1, 3, 64, 65)])
def test_bad_shapes(net, shape):
    with pytest.raises(InputError, match=r"faces must be \(N,3,64,64\)") as caught:
        net(torch.zeros(shape))
    assert "\n" not in str(caught.value)


def test_round_trip(net, tmp_path):
    with torch.no_grad():
        net.features_mean.normal_()  # buffers are saved too
    net.save_pretrained(tmp_path)
    again = Restorer.from_pretrained(tmp_path)
    assert dict(again.config)["size"] == 64
    assert net.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in net.state_dict().items())


def test_the_largest_fits_the_repository_and_the_prior():
    with torch.device("meta"):
        net = Restorer(spatial_channels=(512, 256), fine_channels=128, style_slots=9, atoms=32)
    assert sum(parameter.numel() for parameter in net.parameters()) < 12_000_000
    assert (net.config.feature_channels, net.config.latent_dim, net.config.size // 8) == (512, 512, 32)
