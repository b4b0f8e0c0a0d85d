"""Builders of toy subjects: real classes at sizes that run in milliseconds, always with the same weights.

One function per thing, named after it, every size a keyword with a default that is as small as the class allows:

    def generator(*, channels=8) -> Generator:
        with seeded(): return Generator(...).eval()

Add yours at the end, under the heading of its package. What only one test needs stays in that test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
)
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipelines.arc2face import NOISE, Arc2FacePipeline
from pipelines.edit import EditPipeline
from pipelines.frontalize import FrontalizePipeline
from pipelines.generate import GeneratePipeline
from pipelines.reenact import ReenactPipeline
from pipelines.restore import RestorePipeline
from pipelines.upsample import UpsamplePipeline
from studio.base import StudioPipeline
from studio.detect import Together
from studio.errors import InputError
from studio.faces.faces import Faces
from studio.faces.given import check_aligned
from studio.find import FaceFinder
from studio.networks.arcface import ArcFaceNet
from studio.networks.cleaner import Cleaner
from studio.networks.depth import DepthNet
from studio.networks.detector import FaceDetector
from studio.networks.finder import FinderNet
from studio.networks.frontalizer import Frontalizer
from studio.networks.generator import Generator
from studio.networks.head_parts import HeadParts
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.iris import IrisNet
from studio.networks.latent_flow import LatentFlow
from studio.networks.latent_reader import LatentReader
from studio.networks.latent_space import LatentSpace
from studio.networks.loading import StrictModel
from studio.networks.map_flow import MapFlow
from studio.networks.mesh import FaceMesh
from studio.networks.reenactor import Reenactor
from studio.networks.restorer import Restorer
from tests.faces.synthetic import faces_of, head, smooth_image


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draws inside are the same every time, and leave the caller's random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


# --- inputs -----------------------------------------------------------------------------------------------------------


def image(height: int = 24, width: int = 32, *, seed: int = 0) -> Tensor:
    """A smooth random picture, (3,H,W) float32 RGB in [0,1]."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]


# --- a toy pipeline: the smallest thing that follows every rule ------------------------------------------------------


class TinyNet(StrictModel):
    """One 1x1 convolution. The tests that save it make it public for their time."""

    @register_to_config
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).sigmoid()


@dataclass
class TinyOutput(BaseOutput):
    images: list[Any]
    reports: list[dict[str, float]]


class TinyPipeline(StudioPipeline):
    """Blends each picture with what the network makes of it."""

    known_names = ("tiny",)

    def __init__(self, net: TinyNet) -> None:
        super().__init__()
        self.register_modules(net=net)

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        return {"net": tiny_net()}

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor | list[Tensor],
        strength: float = 1.0,
        generator: torch.Generator | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
    ) -> TinyOutput | tuple:
        if output_type not in ("pt", "np"):
            raise InputError(f"output_type must be 'pt' or 'np', got {output_type!r}: pass one of them")
        if not 0 <= strength <= 1:
            raise InputError(f"strength must lie in [0, 1], got {strength}: pass a number between them")
        images = image if isinstance(image, list) else [image]
        if not all(isinstance(one, Tensor) and one.ndim == 3 for one in images):
            raise InputError("image must be a (3,H,W) tensor or a list of them, got something else: load it first")
        done = []
        for one in images:
            grain = 0.0 if generator is None else 0.01 * torch.randn(one.shape, generator=generator)
            done.append(one + strength * (self.net(one[None])[0] + grain - one))
        reports = [{"mean": float(one.mean())} for one in done]
        if output_type == "np":
            done = [one.numpy() for one in done]
        output = TinyOutput(images=done, reports=reports)
        return output if return_dict else output.to_tuple()


def tiny_net() -> TinyNet:
    with seeded():
        return TinyNet().eval()


def tiny_pipeline() -> TinyPipeline:
    return TinyPipeline(tiny_net())


# --- studio.networks --------------------------------------------------------------------------------------------------


def fill_randomly(net: torch.nn.Module, scale: float = 0.3, seed: int = 0) -> None:
    """Small random numbers into all parameters and buffers: what starts at zero would hide mistakes."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.copy_(scale * torch.randn(tensor.shape, generator=rng))


def generator(*, channels: tuple[int, ...] = (8,) * 8, style_dim: int = 8, mapping_depth: int = 1) -> Generator:
    """Seven blocks make 1024 px, each one less halves that."""
    net = Generator(channels=channels, style_dim=style_dim, mapping_depth=mapping_depth).eval()
    fill_randomly(net)
    return net


def varied_generator(*, blocks: int = 3, mapping_depth: int = 1) -> Generator:
    """A prior whose faces differ clearly: 64 px, twice that with each block more."""
    prior = generator(channels=(8,) * (blocks + 1), mapping_depth=mapping_depth)
    for name, parameter in prior.named_parameters():
        if "modulation.linear.weight" in name or "up.linear.weight" in name:
            parameter.data *= 8
    return prior


def restorer(
    *,
    size: int = 256,
    feature_channels: int = 8,
    latent_dim: int = 8,
    spatial_channels: tuple[int, ...] = (),
    fine_channels: int = 0,
    style_slots: int = 0,
    atoms: int = 0,
) -> Restorer:
    """Fits `generator()`; spatial path, styles and dictionary begin without effect, as in training."""
    with seeded():
        return Restorer(
            size=size,
            widths=(8,) * 5,
            feature_channels=feature_channels,
            latent_dim=latent_dim,
            spatial_channels=spatial_channels,
            fine_channels=fine_channels,
            style_slots=style_slots,
            atoms=atoms,
        ).eval()


def depth_net() -> DepthNet:
    """Says something else than the rough depth."""
    with seeded():
        net = DepthNet((8, 8, 8)).eval()
        torch.nn.init.normal_(net.out.weight, std=0.05)
    return net


def reenactor() -> Reenactor:
    """Draws something of its own, and about as much of it as of the warped still."""
    with seeded():
        net = Reenactor((8, 8, 8, 8), appearance=8).eval()
        torch.nn.init.normal_(net.out.weight, std=0.1)
        net.out.bias.data.zero_()
    return net


def iris_net() -> IrisNet:
    """The real crop size."""
    with seeded():
        return IrisNet(channels=8).eval()


def image_head(*, start: int = 4, channels_in: int = 8, style_dim: int = 8) -> ImageHead:
    """Fits `generator()`, and one of five blocks; gives 128 px."""
    net = ImageHead(start=start, channels_in=channels_in, size=4 * 2**start, width=8, style_dim=style_dim).eval()
    fill_randomly(net)
    return net


def head_parts(*, channels: int = 8) -> HeadParts:
    """Fits `generator()`'s map after three blocks."""
    with seeded():
        return HeadParts(channels=channels).eval()


def identity_net() -> IdentityNet:
    """The real chip size and vector length."""
    with seeded():
        return IdentityNet(channels=(4, 8, 8), depths=(1, 1, 1)).eval()


def latent_space(*, bank: int = 12, dim: int = 8) -> LatentSpace:
    """Fits `generator()`: statistics of its own latents, random directions and thumbs."""
    space = LatentSpace(dim=dim, bank=bank).eval()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        space.fit(generator().mapping(torch.randn(500, dim, generator=rng)))
        space.directions.fill_(0.1)
        space.directions[:7] = 0.1 * torch.randn(7, dim, generator=rng)  # later ones draw nothing: the bank stays
        space.bank_latents.copy_(generator().mapping(torch.randn(bank, dim, generator=rng)))
        space.bank_thumbs.copy_((255 * torch.rand(space.bank_thumbs.shape, generator=rng)).byte())
        space.bank_embeddings.copy_(torch.randn(space.bank_embeddings.shape, generator=rng) / 8)
        space.readings.copy_(20 * torch.randn(space.readings.shape, generator=rng))
        space.reading_offsets.fill_(50)
    return space


def latent_flow(*, dim: int = 8) -> LatentFlow:
    """Fits `latent_space()` and `identity_net()`; an untrained one would not look at the identity."""
    with seeded():
        net = LatentFlow(dim=dim, width=16, hidden=16, condition=16, depth=1).eval()
    fill_randomly(net)
    with torch.no_grad():
        net.spread.fill_(1.0)
        net.identity_spread.fill_(0.1)
        net.rest.fill_(0.8)
    return net


def frontalizer(*, dim: int = 8) -> Frontalizer:
    """Fits `generator()` and `identity_net()`; 64 px faces."""
    sizes = {"features": 16, "patch_features": 8, "mesh_features": 8, "hidden": 16}
    with seeded():
        net = Frontalizer(64, 64, (8, 8, 8, 8), 16, (8, 8), latent_dim=dim, **sizes).eval()
        torch.nn.init.normal_(net.leave.weight, std=0.3)
    return net


def latent_reader(*, dim: int = 8) -> LatentReader:
    """Fits `latent_space()` and `identity_net()`, and its rate: a number of the latent moves the identity by 0.2."""
    with seeded():
        net = LatentReader(dim=dim, width=16, depth=1).eval()
        net.linear.copy_(0.02 * torch.randn(net.linear.shape))
    return net


# --- studio.faces -----------------------------------------------------------------------------------------------------


class TwoFaces(FaceFinder):
    """Stands in for `FaceFinder`: random detectors find nothing. Two faces in any photo that is not of one colour."""

    meshes = (head((88, 92), height=110), head((205, 80), height=70, roll=10))

    def __call__(self, image: Tensor) -> Faces:
        return faces_of(*self.meshes) if image.max() > image.min() else Faces.empty()

    def given(self, image: Tensor, boxes: Sequence[Sequence[float]]) -> Faces:
        """A head as high as each box."""
        heads = [head(((x0 + x1) / 2, (y0 + y1) / 2), y1 - y0) for x0, y0, x1, y1 in boxes]
        return replace(faces_of(*heads), given=np.ones(len(heads), bool))

    def aligned(self, image: Tensor) -> Faces:
        check_aligned(*image.shape[1:])
        return self.given(image, [(0, 0, *image.shape[1:])])


class TinyFace(TwoFaces):
    """A third one, 3 px between its eyes."""

    meshes = (*TwoFaces.meshes, head((240, 150), height=9))


# --- studio.latents ---------------------------------------------------------------------------------------------------


class SureFinder(FaceFinder):
    """Random networks see no face. Here one is in every photo, two in a wide one, none in black; the mesh is sure."""

    def __call__(self, image: Tensor) -> Faces:
        faces = faces_of(head((40, 36), 44.0), head((120, 36), 40.0))
        return faces[[]] if image.max() == 0 else faces if image.shape[2] > 100 else faces[[0]]

    def place(self, image: Tensor, boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        mesh, presence = super().place(image, boxes, points)
        return mesh, torch.ones_like(presence)

    def follow(self, image: Tensor, mesh: np.ndarray) -> tuple[np.ndarray, float]:
        """Where it was: the toy mesh would make no head."""
        return mesh, 1.0


def finder() -> SureFinder:
    with seeded():
        mesh = FaceMesh(channels=(8,) * 6, head_channels=8)
        return SureFinder(Together(*detectors()), mesh)


# --- pipelines --------------------------------------------------------------------------------------------------------


def photo(*, seed: int = 0) -> Tensor:
    """A colour photo (3,176,256) with room for the faces of `TwoFaces`."""
    return (0.8 * image(176, 256, seed=seed) + 0.1 * smooth_image(176, 256)).clamp(0, 1)


def texture(seed: int, amplitude: float = 0.1, count: int = 2, side: int = 64) -> torch.Tensor:
    """(N,3,side,side): a smooth picture with noise of every size on it."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.full((count, 3, side, side), 0.5)
    for cells in (4, 16, side):
        noise = amplitude * torch.randn(count, 3, cells, cells, generator=rng)
        x = x + F.interpolate(noise, (side, side), mode="bilinear", align_corners=False)
    return x


def sharp_photo(*, seed: int = 0) -> Tensor:
    """Likewise, with detail of a few pixels in it."""
    grain = torch.rand(3, 88, 128, generator=torch.Generator().manual_seed(seed)).repeat_interleave(2, 1)
    return (0.5 * photo(seed=seed) + 0.5 * grain.repeat_interleave(2, 2)).clamp(0, 1)


def restore_pipeline() -> RestorePipeline:
    """The real classes; with `TwoFaces` in place of the finder it does everything that the real one does."""
    # Five blocks and a head after the fourth are enough: a prior of 128 px is enlarged to the crop's 512.
    drawn = generator(channels=(8,) * 6), image_head(), restorer(), map_flow(), cleaner(), head_parts()
    return RestorePipeline(*drawn, *detectors(), face_mesh(), identity_net())


def map_flow(*, feature_channels: int = 8, components: int = 4, size: int = 256, width: int = 8) -> MapFlow:
    """A flow that goes somewhere: its last layers are not zero as in a new one."""
    with seeded():
        net = MapFlow(feature_channels, components, size, width, stem_width=8)
        torch.nn.init.orthogonal_(net.basis)
        torch.nn.init.normal_(net.leave[-1].weight, std=0.1)
    return net.eval()


def cleaner(*, widths: tuple[int, int, int] = (8, 8, 8)) -> Cleaner:
    """A cleaner that smooths a little, and is neither sure nor unsure."""
    with seeded():
        net = Cleaner(widths, blocks=(1, 1, 1))
        torch.nn.init.normal_(net.to_change.weight, std=0.02)
        torch.nn.init.normal_(net.to_certainty[-1].weight, std=0.3)
    return net.eval()


def finder_net(**sizes: Any) -> FinderNet:
    """Sees nothing: of random weights, and unsure."""
    with seeded():
        return FinderNet(**{"widths": (8, 8, 8), "blocks": (1, 1), "merged": 8, **sizes}).eval()


def detectors() -> list[Any]:
    """`finder_net` and two of the published network that see nothing either."""
    with seeded():
        return [finder_net(), *(FaceDetector(variant).eval() for variant in ("full_range", "back"))]


def face_mesh() -> FaceMesh:
    """The real crop size and number of points."""
    with seeded():
        return FaceMesh(channels=(8,) * 6, head_channels=8).eval()


def upsample_pipeline() -> UpsamplePipeline:
    """The real classes; a prior of 128 px, a head of 64 behind the map of 32 that can be moved."""
    # Two mapping layers: the tensors of the saved file are then aligned. Those that are not are multiplied in another
    # order, so that the last digit of a loaded prior's picture differs.
    prior = varied_generator(blocks=4, mapping_depth=2), image_head(start=3)
    built = UpsamplePipeline(*prior, latent_space(), *detectors(), face_mesh(), identity_net())
    built.set_progress_bar_config(disable=True)
    return built


def frontalize_pipeline() -> FrontalizePipeline:
    """The real classes; a prior of 64 px, a head of 32."""
    prior = varied_generator(), image_head(start=2)
    built = FrontalizePipeline(*prior, latent_space(), frontalizer(), *detectors(), face_mesh(), identity_net())
    built.set_progress_bar_config(disable=True)
    return built


def edit_pipeline() -> EditPipeline:
    """The real classes: a prior of 256 px, of which a head draws 128, enlarged; a spatial path that does something."""
    reading = restorer(spatial_channels=(8, 8), style_slots=2)
    fill_randomly(reading.to_spatial, 0.05)
    heads = image_head(), image_head(start=2)
    drawing = varied_generator(blocks=5, mapping_depth=2), latent_space(), reading, head_parts(), *heads
    built = EditPipeline(*drawing, *detectors(), face_mesh(), identity_net())
    built.set_progress_bar_config(disable=True)
    return built


def generate_pipeline() -> GeneratePipeline:
    """The real classes; a prior of 64 px, a head of 32."""
    parts = varied_generator(), image_head(start=2), latent_space(), latent_flow(), latent_reader()
    built = GeneratePipeline(*parts, FlowMatchEulerDiscreteScheduler(), *detectors(), face_mesh(), identity_net())
    built.set_progress_bar_config(disable=True)
    return built


def clip_tokenizer(words: str = "photo of a id person") -> CLIPTokenizer:
    """Knows these words, each as one token, and their letters."""
    vocab: dict[str, int] = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    merges: list[tuple[str, str]] = []
    for word in words.split():
        letters = [*word[:-1], f"{word[-1]}</w>"]
        for part in (*letters, *word):
            vocab.setdefault(part, len(vocab))
        whole = letters[0]
        for letter in letters[1:]:
            merges.append((whole, letter))
            whole += letter
            vocab.setdefault(whole, len(vocab))
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def clip_text_encoder(*, hidden_size: int = 24) -> CLIPTextModel:
    """Fits `clip_tokenizer()`; two layers."""
    sizes = {"intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    with seeded():
        net = CLIPTextModel(CLIPTextConfig(hidden_size=hidden_size, **sizes, **tokens)).eval()
    for table in (net.embeddings.token_embedding, net.embeddings.position_embedding):
        fill_randomly(table, 0.1)
    return net


def arcface_net(*, embedding_dim: int = 16) -> ArcFaceNet:
    """Vectors that fit into `clip_text_encoder()`."""
    with seeded():
        return ArcFaceNet(16, (4, 6), (1, 1), embedding_dim).eval()


def unet(*, size: int = 32, cross_attention_dim: int = 24) -> UNet2DConditionModel:
    """Looks at the words of `clip_text_encoder()`."""
    with seeded():
        return UNet2DConditionModel(
            sample_size=size,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=4,
            norm_num_groups=4,
        ).eval()


def vae() -> AutoencoderKL:
    """Pictures twice as large as the latents."""
    blocks = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    with seeded():
        return AutoencoderKL(3, 3, *blocks, (8, 8), norm_num_groups=4, sample_size=64).eval()


def arc2face_pipeline() -> Arc2FacePipeline:
    """The real classes; pictures of 64 px."""
    parts = unet(), clip_text_encoder(), clip_tokenizer(), vae(), DPMSolverMultistepScheduler(**NOISE), arcface_net()
    built = Arc2FacePipeline(*parts, *detectors(), face_mesh(), identity_net())
    built.set_progress_bar_config(disable=True)
    return built


def reenact_pipeline() -> ReenactPipeline:
    """The real classes; a face of 256 px, drawn with eight channels."""
    finding = *detectors(), face_mesh(), iris_net()
    built = ReenactPipeline(reenactor(), depth_net(), *finding, identity_net())
    built.set_progress_bar_config(disable=True)
    return built
