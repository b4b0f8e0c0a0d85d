"""Text encoders of CLIP as they were published before safetensors: a pickle, read for its tensors alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPTextConfig, CLIPTextModel

from studio.convert.torch import check_fit, read

PREFIX = "text_model."  # which transformers left out in its fifth version
COUNTED = "embeddings.position_ids"  # 0, 1, 2 …: no weights


def text_encoder(file: Path, **sizes: Any) -> CLIPTextModel:
    """The encoder of a published `pytorch_model.bin`.

    Args:
        file: the whole file.
        sizes: of `CLIPTextConfig`, where they are not its defaults.

    Raises:
        WeightsError: not such a file; or a tensor is missing, extra or of another shape.
    """
    net = CLIPTextModel(CLIPTextConfig(**sizes))
    tensors = {name.removeprefix(PREFIX): value.float() for name, value in read(file).items()}
    tensors.pop(COUNTED, None)
    check_fit(tensors, net.state_dict(), "CLIPTextModel", file)
    net.load_state_dict(tensors)
    return net.eval()
