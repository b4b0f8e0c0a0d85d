"""Strict loading: round trips work, anything that does not fit is refused in one line."""

from __future__ import annotations

import json
import sys
import threading
from types import ModuleType

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, ModelMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from studio.errors import MissingWeightsError, WeightsError
from studio.networks.loading import StrictModel, strictly

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Tiny(StrictModel):
    """One linear layer and one buffer."""

    @register_to_config
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.register_buffer("mean", torch.zeros(width))


class TinyPipeline(DiffusionPipeline):
    """A pipeline with one component."""

    def __init__(self, net: Tiny) -> None:
        super().__init__()
        self.register_modules(net=net)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    Tiny(4).save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def edit(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def refuse(folder, kind=WeightsError, **keywords):
    with pytest.raises(kind) as caught:
        Tiny.from_pretrained(folder, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_round_trip(folder, low_cpu_mem_usage):
    net = Tiny.from_pretrained(folder, low_cpu_mem_usage=low_cpu_mem_usage)
    torch.manual_seed(0)
    reference = Tiny(4).state_dict()
    assert net.config.width == 4
    assert not net.training
    assert all(torch.equal(value, reference[name]) for name, value in net.state_dict().items())


def test_half_precision_files_load_as_float32(tmp_path):
    Tiny(4).half().save_pretrained(tmp_path)
    assert Tiny.from_pretrained(tmp_path).linear.weight.dtype == torch.float32
    assert Tiny.from_pretrained(tmp_path, dtype=torch.bfloat16).mean.dtype == torch.bfloat16


def test_variant_and_subfolder(tmp_path):
    Tiny(4).save_pretrained(tmp_path / "net", variant="fp16")
    assert Tiny.from_pretrained(tmp_path, subfolder="net", variant="fp16").config.width == 4
    assert WEIGHTS in refuse(tmp_path / "net", MissingWeightsError)


def test_missing_tensor(folder):
    edit(folder, lambda tensors: tensors.pop("mean"))
    assert "1 missing (mean)" in refuse(folder)


def test_unexpected_tensor(folder):
    edit(folder, lambda tensors: tensors.update(other=torch.zeros(2)))
    assert "1 unexpected (other)" in refuse(folder)


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_tensor_of_another_shape(folder, low_cpu_mem_usage):
    edit(folder, lambda tensors: tensors.update(mean=torch.zeros(9)))
    assert "mean" in refuse(folder, low_cpu_mem_usage=low_cpu_mem_usage)


def test_unknown_config_entry(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "depth": 2}))
    assert "depth" in refuse(folder)


def test_damaged_files(folder):
    (folder / WEIGHTS).write_bytes(b"no safetensors")
    refuse(folder)
    (folder / "config.json").write_text("{")
    refuse(folder)


def test_missing_files(tmp_path):
    refuse(tmp_path / "nowhere", MissingWeightsError)
    assert "config.json and diffusion_pytorch_model.safetensors" in refuse(tmp_path, MissingWeightsError)


def test_pickles_are_never_read(folder):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "diffusion_pytorch_model.bin")
    refuse(folder, MissingWeightsError)
    refuse(folder, use_safetensors=False)


def test_misspelt_keyword(folder):
    with pytest.raises(TypeError, match="dytpe"):
        Tiny.from_pretrained(folder, dytpe=torch.float16)


def test_component_of_a_pipeline(tmp_path, monkeypatch):
    # diffusers looks a component up by the module that its class names, and wants its own base classes there too.
    library = ModuleType("library")
    library.Tiny, library.ModelMixin, library.SchedulerMixin = Tiny, ModelMixin, SchedulerMixin
    monkeypatch.setitem(sys.modules, "library", library)
    monkeypatch.setattr(Tiny, "__module__", "library")
    net = Tiny(4)
    TinyPipeline(net).save_pretrained(tmp_path)
    loaded = TinyPipeline.from_pretrained(tmp_path)
    assert torch.equal(loaded.net.linear.weight, net.linear.weight)
    assert TinyPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16).net.mean.dtype == torch.bfloat16
    edit(tmp_path / "net", lambda tensors: tensors.pop("mean"))
    with pytest.raises(WeightsError, match="mean"):
        TinyPipeline.from_pretrained(tmp_path)


def test_a_loaded_network_is_saved_again_without_its_path(folder, tmp_path):
    Tiny.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert "_name_or_path" not in json.loads((tmp_path / "again" / "config.json").read_text())


def test_threads_that_load_at_once_leave_torch_as_it_was(folder):
    # diffusers swaps nn.Module.register_parameter while it builds; put back in the wrong order, every later network
    # of the process is on the meta device.
    met = set()

    def load_and_build() -> None:
        for _ in range(20):
            met.add(Tiny.from_pretrained(folder).linear.weight.device.type)
            met.add(nn.Linear(3, 3).weight.device.type)

    threads = [threading.Thread(target=load_and_build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == {"cpu"}
    assert nn.Linear(3, 3).weight.device.type == "cpu"
    assert nn.Module.register_parameter.__module__ == "torch.nn.modules.module"


# ---- networks of diffusers and transformers


def vae():
    torch.manual_seed(0)
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8).eval()


def text_encoder():
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    return CLIPTextModel(CLIPTextConfig(**sizes, num_attention_heads=2, eos_token_id=1, bos_token_id=0)).eval()


FOREIGN = {AutoencoderKL: (vae, WEIGHTS), CLIPTextModel: (text_encoder, "model.safetensors")}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_networks_come_back_whole_in_float32(tmp_path, kind):
    net = FOREIGN[kind][0]()
    net.half().save_pretrained(tmp_path)
    back = strictly(kind, tmp_path)
    assert type(back) is kind and not back.training
    assert {value.dtype for value in back.parameters()} == {torch.float32}
    for name, value in net.state_dict().items():
        assert torch.equal(back.state_dict()[name], value.float())


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_networks_are_saved_again_without_their_path(tmp_path, kind):
    FOREIGN[kind][0]().save_pretrained(tmp_path / "first")
    strictly(kind, tmp_path / "first").save_pretrained(tmp_path / "second")
    assert str(tmp_path) not in (tmp_path / "second" / "config.json").read_text()


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("change", ["missing", "unexpected", "of another shape"])
def test_foreign_networks_that_do_not_fit(tmp_path, kind, change):
    build, file = FOREIGN[kind]
    build().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / file)
    name = next(iter(tensors))
    value = tensors.pop(name) if change == "missing" else tensors[name]
    tensors |= {
        "missing": {},
        "unexpected": {"one.more": value.clone()},
        "of another shape": {name: value[:1].clone()},
    }[change]
    save_file(tensors, tmp_path / file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"1 {change}") as caught:
        strictly(kind, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_vae_of_old_names_is_read(tmp_path):
    """Stable Diffusion 1.5 was saved when diffusers called the parts of an attention otherwise."""
    net = vae()
    net.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in load_file(tmp_path / WEIGHTS).items():
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}", f"attentions.0.{before}")
        tensors[name] = value
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
    assert torch.equal(strictly(AutoencoderKL, tmp_path).decoder.conv_in.weight, net.decoder.conv_in.weight)


def test_foreign_networks_that_are_not_there(tmp_path):
    with pytest.raises(MissingWeightsError, match=r"must hold config.json"):
        strictly(AutoencoderKL, tmp_path)
    vae().save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(WeightsError, match="could not be loaded as AutoencoderKL"):
        strictly(AutoencoderKL, tmp_path)
