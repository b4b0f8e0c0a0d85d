"""A face restoration and synthesis studio: small networks that run on a CPU behind Diffusers-style pipelines.

Every public name is resolved on first use, so that `import studio` takes milliseconds and imports no torch:

    from studio import RestorePipeline

    result = RestorePipeline.from_pretrained("restore")("grandmother.jpg")
    result.images[0].save("grandmother_restored.png")
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# name -> the module that defines it
_PUBLIC = {
    "Arc2FaceOutput": "pipelines.arc2face",
    "Arc2FacePipeline": "pipelines.arc2face",
    "ArcFaceNet": "studio.networks.arcface",
    "Cleaner": "studio.networks.cleaner",
    "CodeFormer": "studio.networks.codeformer",
    "CredentialsError": "studio.errors",
    "DepthNet": "studio.networks.depth",
    "EditOutput": "pipelines.edit",
    "EditPipeline": "pipelines.edit",
    "FaceDetector": "studio.networks.detector",
    "FaceFinder": "studio.find",
    "FaceMesh": "studio.networks.mesh",
    "FinderNet": "studio.networks.finder",
    "Faces": "studio.faces.faces",
    "FrontalizeOutput": "pipelines.frontalize",
    "FrontalizePipeline": "pipelines.frontalize",
    "Frontalizer": "studio.networks.frontalizer",
    "GFPGAN": "studio.networks.gfpgan",
    "GenerateOutput": "pipelines.generate",
    "GeneratePipeline": "pipelines.generate",
    "Generator": "studio.networks.generator",
    "HeadParts": "studio.networks.head_parts",
    "IdentityEncoder": "studio.identity.encoder",
    "IdentityNet": "studio.networks.identity",
    "ImageHead": "studio.networks.image_head",
    "ImageError": "studio.errors",
    "InputError": "studio.errors",
    "IrisNet": "studio.networks.iris",
    "LatentEncoder": "studio.networks.latent_encoder",
    "LatentFlow": "studio.networks.latent_flow",
    "LatentReader": "studio.networks.latent_reader",
    "LatentSpace": "studio.networks.latent_space",
    "LivePortraitAppearance": "studio.networks.liveportrait",
    "LivePortraitGenerator": "studio.networks.liveportrait",
    "LivePortraitMotion": "studio.networks.liveportrait",
    "LivePortraitRetargeting": "studio.networks.liveportrait",
    "LivePortraitWarping": "studio.networks.liveportrait",
    "MapFlow": "studio.networks.map_flow",
    "MissingWeightsError": "studio.errors",
    "NoFaceError": "studio.errors",
    "Photo": "studio.images",
    "RRDBNet": "studio.networks.rrdb",
    "ReenactOutput": "pipelines.reenact",
    "ReenactPipeline": "pipelines.reenact",
    "Reenactor": "studio.networks.reenactor",
    "RestoreFormer": "studio.networks.restoreformer",
    "RestoreOutput": "pipelines.restore",
    "RestorePipeline": "pipelines.restore",
    "Restorer": "studio.networks.restorer",
    "SPAN": "studio.networks.span",
    "StudioError": "studio.errors",
    "UpsampleOutput": "pipelines.upsample",
    "UpsamplePipeline": "pipelines.upsample",
    "Upsampler": "studio.background",
    "WeightsError": "studio.errors",
    "compare_faces": "studio.identity.compare",
}

# diffusers loads a component ["studio", "Restorer"] with the method that belongs to its base class, and looks for
# that base class under its bare name here. Not part of the public names.
_FOR_DIFFUSERS = {"ModelMixin": "diffusers", "SchedulerMixin": "diffusers"}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name) or _FOR_DIFFUSERS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
