import pytest
import torch

from studio.errors import InputError
from studio.networks.latent_encoder import LatentEncoder


@pytest.fixture
def net():
    torch.manual_seed(0)
    return LatentEncoder(size=32, widths=(16,) * 4, hidden=8, latent_dim=5).eval()


def test_shapes_and_larger_pictures(net):
    faces = torch.rand(2, 3, 64, 64)
    out = net(faces)
    assert out.shape == (2, 2, 5) and out.dtype == torch.float32
    assert torch.allclose(out, net(torch.nn.functional.avg_pool2d(faces, 2)), atol=1e-6)
    assert not torch.equal(out[0], out[1])


def test_saved_and_loaded(net, tmp_path):
    net.save_pretrained(tmp_path)
    face = torch.rand(1, 3, 32, 32)
    assert torch.equal(net(face), LatentEncoder.from_pretrained(tmp_path)(face))


@pytest.mark.parametrize("shape", [(1, 3, 31, 31), (1, 3, 64, 32), (3, 64, 64), (1, 1, 64, 64)])
def test_other_shapes_are_refused(net, shape):
    with pytest.raises(InputError, match="32 px or more"):
        net(torch.rand(shape))
