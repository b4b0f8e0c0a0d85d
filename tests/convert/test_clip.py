"""Text encoders of CLIP as they were published: a pickle of tensors, under the names of its time."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from studio.convert.clip import text_encoder
from studio.errors import WeightsError
from tests import tiny

TOY = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}


def published(tmp_path, change=lambda table: None):
    """An encoder, and the file of it: names with a prefix, and the positions beside the weights, as in 2023."""
    with tiny.seeded():
        net = CLIPTextModel(CLIPTextConfig(**TOY)).eval()
    table = {f"text_model.{name}": value.clone() for name, value in net.state_dict().items()}
    table["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    change(table)
    torch.save(table, tmp_path / "pytorch_model.bin")
    return net, tmp_path / "pytorch_model.bin"


def test_it_says_the_same(tmp_path):
    net, file = published(tmp_path)
    found, ids = text_encoder(file, **TOY), torch.arange(16)[None]
    assert not found.training
    with torch.inference_mode():
        assert torch.equal(found(ids)[0], net(ids)[0])


def test_half_precision_becomes_float32(tmp_path):
    _, file = published(tmp_path, lambda table: table.update({name: value.half() for name, value in table.items()}))
    assert {value.dtype for value in text_encoder(file, **TOY).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.pop("text_model.final_layer_norm.bias"), r"1 missing \(final_layer_norm.bias\)"),
        (lambda table: table.update(more=torch.zeros(1)), r"1 unexpected \(more\)"),
        (lambda table: table.update({"text_model.final_layer_norm.bias": torch.zeros(9)}), r"is \(9,\), not \(8,\)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    _, file = published(tmp_path, change)
    with pytest.raises(WeightsError, match=message) as caught:
        text_encoder(file, **TOY)
    assert "\n" not in str(caught.value)


class Runs:
    """A pickle that would run something."""

    def __reduce__(self):
        return print, ("ran",)


def test_a_pickle_that_runs_something_does_not(tmp_path, capsys):
    torch.save({"text_model.final_layer_norm.bias": Runs()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="nothing that runs"):
        text_encoder(tmp_path / "pytorch_model.bin", **TOY)
    assert "ran" not in capsys.readouterr().out
