"""Weights in a byte each: what is lost, and that the loader takes them as it takes others."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.errors import WeightsError
from studio.networks import rows
from studio.networks.cleaner import Cleaner
from tests import tiny

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(tmp_path):
    """A network whose weights lie in rows, and its folder."""
    net = tiny.cleaner(widths=(16, 24, 32))
    net.save_pretrained(tmp_path)
    rows.save_rows(net.state_dict(), tmp_path / WEIGHTS)
    return net, tmp_path


def test_large_weights_take_a_byte_and_lose_less_than_half_a_step(saved):
    net, folder = saved
    held = load_file(folder / WEIGHTS)
    loaded = rows.load_rows(folder / WEIGHTS)
    assert held["coarse.0.conv1.weight"].dtype == torch.int8 and held["coarse.0.conv1.bias"].dtype == torch.float16
    assert held["to_change.weight"].dtype == torch.int8 and held["fine.0.norm.weight"].dtype == torch.float16
    for name, value in net.state_dict().items():
        step = value.flatten(1).abs().amax(1).view(-1, *[1] * (value.ndim - 1)) / 127 if value.ndim > 1 else 1e-3
        assert ((loaded[name] - value).abs() <= 0.52 * step + 1e-6).all()


def test_the_loader_takes_them(saved):
    net, folder = saved
    loaded = Cleaner.from_pretrained(folder)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded(x).estimate, net(x).estimate, atol=1e-2, rtol=0)
    assert not loaded.training and loaded.dtype == torch.float32
    assert Cleaner.from_pretrained(folder, torch_dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_row_of_zeros_stays_one(tmp_path):
    weight = torch.randn(70, 80)
    weight[3] = 0
    rows.save_rows({"a.weight": weight, "count": torch.tensor(3)}, tmp_path / WEIGHTS)
    loaded = rows.load_rows(tmp_path / WEIGHTS)
    assert (loaded["a.weight"][3] == 0).all() and loaded["count"] == 3


def test_what_is_kept_stays_in_half_precision(tmp_path):
    tensors = {name: torch.randn(70, 80) for name in ("fine.weight", "coarse.weight")}
    rows.save_rows(tensors, tmp_path / WEIGHTS, keep=("fine",))
    held = load_file(tmp_path / WEIGHTS)
    assert (held["fine.weight"].dtype, held["coarse.weight"].dtype) == (torch.float16, torch.int8)


def test_what_does_not_fit_is_refused(saved):
    _, folder = saved
    held = load_file(folder / WEIGHTS)
    del held["to_change.bias"]
    save_file(held, folder / WEIGHTS, rows.METADATA)
    with pytest.raises(WeightsError, match=r"1 missing \(to_change.bias\)"):
        Cleaner.from_pretrained(folder)
    held["to_change.bias"] = torch.zeros(5)
    save_file(held, folder / WEIGHTS, rows.METADATA)
    with pytest.raises(WeightsError, match=r"1 of another shape \(to_change.bias is \(5,\), not \(48,\)\)"):
        Cleaner.from_pretrained(folder)


def test_other_files_are_none(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / WEIGHTS)
    assert not rows.is_in_rows(tmp_path / WEIGHTS)
