"""StudioPipeline: strict loading, and a saved format that does not depend on where a class is defined."""

import json
import logging
import threading

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

import studio
from studio.base import StudioPipeline
from studio.errors import InputError, MissingWeightsError, WeightsError
from tests import tiny
from tests.tiny import TinyPipeline


@pytest.fixture(autouse=True)
def _public(monkeypatch):
    monkeypatch.setitem(studio._PUBLIC, "TinyNet", "tests.tiny")
    monkeypatch.setattr(studio, "TinyNet", tiny.TinyNet, raising=False)


@pytest.fixture
def saved(tmp_path):
    tiny.tiny_pipeline().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def edit(folder, **changes):
    """Rewrites entries of model_index.json; a change to None takes the entry out."""
    file = folder / "model_index.json"
    index = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in index.items() if value is not None}))


def test_saved_format(saved):
    index = json.loads((saved / "model_index.json").read_text())
    assert index.pop("_diffusers_version").startswith("0.42.")
    assert index == {"_class_name": "TinyPipeline", "net": ["studio", "TinyNet"]}
    assert sorted(str(file.relative_to(saved)) for file in saved.rglob("*.*")) == [
        "README.md",
        "model_index.json",
        "net/config.json",
        "net/diffusion_pytorch_model.safetensors",
    ]


def test_round_trip(saved):
    first, second = tiny.tiny_pipeline(), TinyPipeline.from_pretrained(saved)
    assert type(second) is TinyPipeline
    assert torch.equal(first(tiny.image()).images[0], second(tiny.image()).images[0])


def test_saving_what_was_loaded_gives_the_same_index(saved, tmp_path):
    TinyPipeline.from_pretrained(saved).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/model_index.json").read_bytes() == (saved / "model_index.json").read_bytes()


def test_a_replaced_component_is_saved(saved, tmp_path):
    pipeline = TinyPipeline.from_pretrained(saved)
    with tiny.seeded(1):
        pipeline.net = tiny.TinyNet().eval()
    pipeline.save_pretrained(tmp_path / "again")
    again = TinyPipeline.from_pretrained(tmp_path / "again")
    assert torch.equal(again.net.conv.weight, pipeline.net.conv.weight)


def test_known_name_in_another_type():
    pipeline = TinyPipeline.from_pretrained("tiny", dtype=torch.bfloat16, device="cpu")
    assert pipeline.net.conv.weight.dtype == torch.bfloat16


def test_half_precision_files_load_as_float32(tmp_path):
    half = tiny.tiny_pipeline()
    half.net.to(torch.float16)
    half.save_pretrained(tmp_path)
    assert TinyPipeline.from_pretrained(tmp_path).net.conv.weight.dtype == torch.float32
    assert TinyPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16).net.conv.weight.dtype == torch.bfloat16


def test_a_known_name_wins_over_a_folder(saved, monkeypatch, tmp_path):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    TinyPipeline.from_pretrained("tiny")
    with pytest.raises(MissingWeightsError):
        TinyPipeline.from_pretrained("./tiny")


def test_a_diffusers_scheduler_is_a_component(tmp_path):
    class WithScheduler(StudioPipeline):
        def __init__(self, net: tiny.TinyNet, scheduler: FlowMatchEulerDiscreteScheduler, steps: int = 4) -> None:
            super().__init__()
            self.register_modules(net=net, scheduler=scheduler)
            self.register_to_config(steps=steps)

        @classmethod
        def _components(cls, name):
            raise NotImplementedError

        def __call__(self):
            raise NotImplementedError

    WithScheduler(tiny.tiny_net(), FlowMatchEulerDiscreteScheduler(shift=2.0), steps=7).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    again = WithScheduler.from_pretrained(tmp_path)
    assert again.scheduler.config.shift == 2.0
    assert again.config.steps == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no_such_name", r"got 'no_such_name': check the spelling \(known names of TinyPipeline: tiny\)"),
        ("a/b/c", "check the spelling"),
        (7, "got int"),
        (None, "got NoneType"),
        ("", "check the spelling"),
    ],
)
def test_refuses_what_is_neither_name_nor_folder(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        TinyPipeline.from_pretrained(given)
    assert "\n" not in str(caught.value)


def test_refuses_a_folder_without_index(tmp_path):
    with pytest.raises(MissingWeightsError, match="must hold a saved pipeline, a saved network or one file of weights"):
        TinyPipeline.from_pretrained(tmp_path)


def test_refuses_an_index_that_is_not_json(saved):
    (saved / "model_index.json").write_text("{")
    with pytest.raises(WeightsError, match="must be JSON"):
        TinyPipeline.from_pretrained(saved)


def test_refuses_the_folder_of_another_pipeline(saved):
    edit(saved, _class_name="OtherPipeline")
    with pytest.raises(InputError, match="must hold a TinyPipeline, but holds 'OtherPipeline'"):
        TinyPipeline.from_pretrained(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"net": None}, r"missing \['net'\]"),
        ({"extra": ["studio", "TinyNet"]}, r"unknown \['extra'\]"),
        ({"net": ["tests.tiny", "TinyNet"]}, "with one of the libraries"),
        ({"net": ["os", "system"]}, "with one of the libraries"),
        ({"net": [None, None]}, "with one of the libraries"),
        ({"net": "TinyNet"}, "with one of the libraries"),
    ],
)
def test_refuses_an_index_that_does_not_fit(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        TinyPipeline.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_component_folder(saved):
    (saved / "net").rename(saved / "elsewhere")
    with pytest.raises(MissingWeightsError, match="must have a folder 'net' for the TinyNet"):
        TinyPipeline.from_pretrained(saved)


@pytest.mark.parametrize("keyword", ["devise", "variant", "trust_remote_code"])
def test_refuses_unknown_keywords(saved, keyword):
    with pytest.raises(TypeError, match=keyword):
        TinyPipeline.from_pretrained(saved, **{keyword: None})


@pytest.mark.parametrize("dtype", [torch.int8, "float16"])
def test_refuses_types_that_are_not_floating(saved, dtype):
    with pytest.raises(InputError, match="dtype must be a floating"):
        TinyPipeline.from_pretrained(saved, dtype=dtype)


def test_refuses_to_save_what_could_not_be_loaded(monkeypatch, tmp_path):
    monkeypatch.delitem(studio._PUBLIC, "TinyNet")
    monkeypatch.delattr(studio, "TinyNet")
    with pytest.raises(InputError, match=r"public class of studio, but 'net' is tests\.tiny\.TinyNet"):
        tiny.tiny_pipeline().save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_refuses_to_save_over_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        tiny.tiny_pipeline().save_pretrained(tmp_path / "file")


def test_shards(tmp_path, saved):
    tiny.tiny_pipeline().save_pretrained(tmp_path / "shards", max_shard_size=40)
    assert (tmp_path / "shards/net/diffusion_pytorch_model.safetensors.index.json").is_file()
    again = TinyPipeline.from_pretrained(tmp_path / "shards")
    assert torch.equal(again.net.conv.weight, tiny.tiny_net().conv.weight)


def test_pipelines_are_final_and_the_base_is_abstract():
    with pytest.raises(TypeError, match="final"):

        class Derived(TinyPipeline):
            pass

    with pytest.raises(TypeError, match="abstract"):
        StudioPipeline()


class DecoderPipeline(StudioPipeline):
    """One network of diffusers."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.register_modules(vae=vae)

    @classmethod
    def _components(cls, name):
        raise NotImplementedError

    def __call__(self):
        raise NotImplementedError


def test_networks_of_diffusers_are_loaded_as_strictly(tmp_path):
    with tiny.seeded():
        vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    DecoderPipeline(vae).save_pretrained(tmp_path)
    back = DecoderPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16).vae
    assert back.dtype == torch.bfloat16 and not back.training
    assert torch.equal(back.quant_conv.weight, vae.quant_conv.weight.bfloat16())
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["quant_conv.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 missing \(quant_conv.weight\)"):
        DecoderPipeline.from_pretrained(tmp_path)


def test_a_network_of_diffusers_that_there_is_not(tmp_path):
    DecoderPipeline(AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)).save_pretrained(tmp_path)
    edit(tmp_path, vae=["diffusers", "AutoencoderXL"])
    with pytest.raises(WeightsError, match="AutoencoderXL"):
        DecoderPipeline.from_pretrained(tmp_path)


def test_loads_in_threads_without_a_warning(saved, caplog):
    caplog.set_level(logging.WARNING)
    loaded = []
    threads = [threading.Thread(target=lambda: loaded.append(TinyPipeline.from_pretrained(saved))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 4
    assert not caplog.records
