"""Published restorers: the layout of their files, what their authors' networks give, and what `fidelity` does."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from studio.networks.codeformer import CodeFormer
from studio.networks.gfpgan import GFPGAN
from studio.networks.restoreformer import RestoreFormer
from studio.networks.vq import Codebook
from tests import parity, tiny

NETS = {"gfpgan_1.4": GFPGAN, "codeformer": CodeFormer, "restoreformer": RestoreFormer}
# SHA-256 of the published layouts, a line "name shape" for every tensor, sorted.
LAYOUTS = {
    "gfpgan_1.4": "41a7618e54187f47dbd30a8899146e8d80a88d021cb651d5bed0cd5f88cd5b1c",
    "codeformer": "f3b6f50efa9ace4ef22ac4f0fe8c3ca5e5432831438cfe88ca3dbe35828c03a4",
    "restoreformer": "40b973d63526badd063740a38407a31fecddc648fd5638795e13699119045399",
}


def toys():
    """The real classes; 32 px, 64 px and 64 px."""
    return {
        "gfpgan": GFPGAN(size=32, widths=(16, 16, 8, 8), latent_dim=8, mapping_depth=1),
        "codeformer": CodeFormer(
            size=64, width=8, multipliers=(1, 2, 2), codes=32, codes_dim=8, dim=16, heads=2, layers=1, fused=(32,)
        ),
        "restoreformer": RestoreFormer(width=8, multipliers=(1, 2), codes=32, codes_dim=8, heads=2),
    }


def size_of(net):
    return 32 if isinstance(net, GFPGAN) else 64


@pytest.fixture(params=["gfpgan", "codeformer", "restoreformer"])
def toy(request):
    with tiny.seeded():
        net = toys()[request.param]
    return parity.fill(net)


def digest(shapes):
    lines = "".join(f"{name} {tuple(shape)}\n" for name, shape in sorted(shapes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def real(name):
    """A network of the published size, without numbers."""
    with torch.device("meta"):
        return NETS[name]()


@pytest.mark.parametrize("name", NETS)
def test_the_layout_is_the_published_one(name):
    shapes = {key: tuple(tensor.shape) for key, tensor in real(name).state_dict().items()}
    assert digest(shapes) == LAYOUTS[name]


@parity.needs_references
@pytest.mark.parametrize("name", NETS)
def test_the_layout_is_that_of_the_references(name):
    assert digest(parity.layout(name)) == LAYOUTS[name]


@pytest.fixture(scope="module")
def picture():
    x = np.random.RandomState(0).uniform(-1, 1, (1, 3, 512, 512)).astype(np.float32)
    return torch.from_numpy(x)


@parity.needs_references
@pytest.mark.slow
@pytest.mark.parametrize("name", ["gfpgan_1.4", "restoreformer"])
def test_parity(name, picture):
    net = parity.fill(real(name).to_empty(device="cpu"))
    with torch.inference_mode():
        found = parity.probes(net(picture))
    parity.check(name, found, parity.outputs(name))


@parity.needs_references
@pytest.mark.slow
def test_parity_of_codeformer(picture):
    net, wanted = parity.fill(real("codeformer").to_empty(device="cpu")), parity.outputs("codeformer")
    with torch.inference_mode():
        read, features = net.encode(picture)
        logits = net.logits(read)
        assert parity.share_of_spread(logits[0, ::16, ::64], wanted["logits"]) < 1e-4
        assert torch.equal(logits.argmax(2)[0].int(), wanted["codes"])
        for w, adain in ((0.0, True), (0.5, True), (1.0, False)):
            tag = f"w{w}_adain{int(adain)}"
            found = parity.probes(net.draw(logits, read, features, torch.tensor([w]), adain))
            parity.check(f"codeformer {tag}", found, {key: wanted[f"{tag}.{key}"] for key in found})


# ------------------------------------------------------------------------------------------------------------ toys


def test_a_batch_is_a_loop(toy):
    crops = torch.stack([tiny.image(size_of(toy), size_of(toy), seed=seed) for seed in (1, 2)])
    fidelity = torch.tensor([0.2, 0.9])
    with torch.inference_mode():
        both = toy.restore(crops, fidelity)
        each = torch.cat([toy.restore(crops[[i]], fidelity[[i]]) for i in (0, 1)])
    assert both.shape == crops.shape
    assert float(both.std()) > 1e-3
    torch.testing.assert_close(both, each, atol=1e-5, rtol=1e-4)


def test_fidelity_brings_the_photo_back(toy):
    side = size_of(toy)
    crops = tiny.image(side, side)[None].repeat(3, 1, 1, 1)
    with torch.inference_mode():
        low, usual, high = toy.restore(crops, torch.tensor([0.0, 0.5, 1.0]))
    assert not torch.equal(usual, high)
    if isinstance(toy, CodeFormer):  # its own setting, all the way
        assert not torch.equal(low, usual)
    else:
        torch.testing.assert_close(low, usual)
        torch.testing.assert_close(high, (usual + crops[0]) / 2)


def test_half_precision(toy):
    side = size_of(toy)
    crops = tiny.image(side, side)[None]
    with torch.inference_mode():
        full = toy.restore(crops, torch.tensor([0.5]))
        half = torch.nn.Module.to(toy, dtype=torch.bfloat16).restore(crops.bfloat16(), torch.tensor([0.5]))
    assert half.dtype == torch.bfloat16
    # In coarser numbers another code is taken here and there, and toy codes are nothing alike.
    assert float((half.float() - full).abs().mean() / full.std()) < (0.05 if isinstance(toy, GFPGAN) else 0.6)


def test_saved_and_loaded_it_gives_the_same(toy, tmp_path):
    toy.save_pretrained(tmp_path)
    crops = tiny.image(size_of(toy), size_of(toy))[None]
    loaded = type(toy).from_pretrained(tmp_path)
    with torch.inference_mode():
        assert torch.equal(loaded.restore(crops, torch.tensor([0.3])), toy.restore(crops, torch.tensor([0.3])))


def test_the_nearest_code_by_hand():
    book = Codebook(3, 2)
    with torch.no_grad():
        book.embedding.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
    x = torch.tensor([[[[0.4, 0.6]], [[0.9, 1.2]]]])  # (1, 2, 1, 2): the places (0.4, 0.9) and (0.6, 1.2)
    assert book.nearest(x).tolist() == [[[0, 2]]]
    assert book.look_up(torch.tensor([[[2, 1]]]))[0, :, 0].tolist() == [[0, 1], [2, 0]]
