"""Published checkpoints: containers, tensors that do not fit, and files that would run something."""

from __future__ import annotations

import collections
import os

import pytest
import torch

from studio.convert import torch as published
from studio.convert.torch import FAMILIES, Family, divided, family_of, filled, read
from studio.errors import WeightsError
from studio.networks.liveportrait import RETARGETING, LivePortraitRetargeting
from studio.networks.rrdb import RRDBNet
from tests import tiny

TOY = Family("body.0.rdb1.conv1.weight", RRDBNet, options={"width": 4, "growth": 2, "blocks": 1})


@pytest.fixture
def tensors():
    with tiny.seeded():
        return RRDBNet(**TOY.options).state_dict()


def saved(tmp_path, table, name="net.pth", **options):
    torch.save(table, tmp_path / name, **options)
    return tmp_path / name


def refused(call, *arguments):
    with pytest.raises(WeightsError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "net.ckpt", "net.bin"])
def test_the_old_format_too(tmp_path, tensors, name):
    for new in (True, False):
        found = read(saved(tmp_path, {"state_dict": tensors}, name, _use_new_zipfile_serialization=new))
        assert set(found) == set(tensors)


def test_what_lies_beside_the_tensors_is_left_out(tmp_path, tensors):
    table = {"epoch": 7, "optimizer": {"lr": 0.1}, "model": collections.OrderedDict(tensors)}
    assert set(read(saved(tmp_path, table))) == set(tensors)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("conv_hr.weight"), "1 missing (conv_hr.weight)"),
        (lambda t: t.update({"conv_hi.weight": t.pop("conv_hr.weight")}), "1 unexpected (conv_hi.weight)"),
        (lambda t: t.update({"conv_hr.bias": torch.zeros(5)}), "1 of another shape (conv_hr.bias is (5,), not (4,))"),
    ],
)
def test_every_tensor_must_fit(tmp_path, tensors, change, said):
    change(tensors)
    table = read(saved(tmp_path, tensors))
    assert said in refused(filled, table, TOY, tmp_path / "net.pth")


def test_half_precision_becomes_float32(tmp_path, tensors):
    half = {name: value.half() for name, value in tensors.items()}
    net = filled(half, TOY, tmp_path)
    assert net.conv_first.weight.dtype == torch.float32
    torch.testing.assert_close(net.conv_first.weight, tensors["conv_first.weight"], atol=1e-3, rtol=0)


class Malicious:
    """What a pickle can do: run a command when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_runs_something_is_refused_and_does_not_run(tmp_path, new):
    target = tmp_path / "it ran"
    file = saved(tmp_path, {"params_ema": Malicious(target)}, _use_new_zipfile_serialization=new)
    said = refused(read, file)
    assert "must hold tensors and nothing that runs" in said
    assert not target.exists()
    torch.load(file, weights_only=False)  # the file does what it is meant to
    assert target.exists()


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"PK\x03\x04 half a file"])
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_other_files_are_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    refused(read, tmp_path / name)


@pytest.mark.parametrize("table", [[1, 2], {}, {"params": {"a": 1}}, "text"])
def test_tables_without_tensors_are_refused(tmp_path, table):
    assert "a table of tensors, it holds" in refused(read, saved(tmp_path, table))


def test_what_is_of_no_family(tmp_path):
    said = refused(family_of, {"some.weight": torch.zeros(1)}, tmp_path / "net.pth")
    assert "gfpgan" in said and "some.weight" in said
    assert "to be a RRDBNet" in refused(filled, {"some.weight": torch.zeros(1)}, TOY, tmp_path)


def test_marks_tell_families_apart():
    for name, family in FAMILIES.items():
        if family.mark.startswith("retarget_"):
            continue
        with torch.device("meta"):
            tensors = family.network(**family.options).state_dict()
        given = {key.replace("conv_0.weight", "conv_0.weight_orig"): value for key, value in tensors.items()}
        assert family_of(given, None) == name


def test_spectral_normalization_is_divided_out():
    """As torch's own layer does it."""
    layer = torch.nn.utils.spectral_norm(torch.nn.Conv2d(3, 4, 3)).eval()
    found = divided(layer.state_dict())
    assert set(found) == {"weight", "bias"}
    x = torch.rand(1, 3, 5, 5)
    torch.testing.assert_close(torch.nn.functional.conv2d(x, found["weight"], found["bias"]), layer(x))
    assert "must come with" in refused(divided, {"weight_orig": torch.zeros(1)})


def test_several_networks_in_one_file(tmp_path):
    tables = {
        key: {
            f"module.{name}": value for name, value in LivePortraitRetargeting(**RETARGETING[part]).state_dict().items()
        }
        for part, key in published.RETARGETING.items()
    }
    file = saved(tmp_path, tables)
    eye = published.network(file, "liveportrait-eye")
    assert torch.equal(eye.mlp[0].weight, tables["retarget_eye"]["module.mlp.0.weight"])
    assert published.network(file, "liveportrait-lip").config.inputs == 65
