"""What is trained, as data. `studio train --list` prints these; `--dry-run` prints one resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """One training.

    Attributes:
        images: faces seen over the whole training; the learning rate falls to its end by then.
        batch: faces in one step.
        real_share: share of every batch that comes from the folder of real faces (no features or latent loss).
        old_share: share of every batch that are old photographs, of which no clean version exists; see `Trainer`.
        warped_share: share that are generated faces, warped and recoloured (no features or latent loss either); above
            zero, real faces are warped a little too.
        start: weights to start from, a name of the weight store; empty for new ones.
        head: image head that finishes the drawn prior, a name of the weight store.
        spatial: whether the network has a spatial path, see `Restorer`.
        fine: whether it has one at the input's own size, which only the 512 px head shows.
        style_slots, atoms: see `Restorer`.
        recipe: degradation recipe, see `studio.degradations`.
        added_rate: times the learning rate, of the dictionary's confidences, of the styles and of the fine path, which
            begin at zero.
        trained: beginning of the names of the parameters that are trained; empty for all.
        learning_rate: its peak, after `warmup` steps; cosine to 2 % of it.
        features_weight, latent_weight, estimate_weight, identity_weight: of the four losses, see `losses`.
        identity_from: faces seen before the identity loss joins in; it needs a face in the estimate first.
        prior_weight: of the drawn prior's pixels, coarse; above zero the gradient goes through the generator, and the
            others below count too.
        spatial_weight: of the mean squares of the spatial path's scales and shifts and of the style layers' own
            latents, which keeps the generator close to what it was trained to do.
        energy_weight: of the prior's local contrast.
        fine_weight: of the local contrast of the drawn prior's finest octave, at its full size, against what the
            generator draws of the same latents; needs the 512 px head.
        maps_weight: of the identity network's maps of the prior.
        person_weight: of the descriptors' distance, of the prior and (half) of the joined picture.
        landmarks_weight: of the mesh's points on both.
        consistency_weight: of old photographs: prior and estimate, shrunk to a quarter, against the photograph shrunk.
        grid_weight: of patterns that repeat from cell to cell, on the prior and again on its eyes.
        adversarial_weight: of a critic of the prior's patches, see `studio.training.critic`; relative to the pull of
            the prior's pixels, so 1 weighs as much as they do.
        components_weight: the same of a critic of eyes and mouth.
        expect: what the finished weights should reach, for whoever repeats it.
    """

    name: str
    images: int
    batch: int = 8
    real_share: float = 0.25
    old_share: float = 0.0
    warped_share: float = 0.0
    start: str = ""
    head: str = "head_512"
    spatial: bool = False
    fine: bool = False
    style_slots: int = 0
    atoms: int = 0
    recipe: str = "training"
    added_rate: float = 1.0
    trained: str = ""
    learning_rate: float = 4e-4
    warmup: int = 200
    features_weight: float = 1.0
    latent_weight: float = 0.3
    estimate_weight: float = 6.0
    identity_weight: float = 0.15
    identity_from: int = 14_000
    prior_weight: float = 0.0
    spatial_weight: float = 0.1
    energy_weight: float = 4.0
    fine_weight: float = 0.0
    maps_weight: float = 1.0
    person_weight: float = 1.0
    landmarks_weight: float = 3.0
    consistency_weight: float = 0.0
    grid_weight: float = 0.0
    adversarial_weight: float = 0.0
    components_weight: float = 0.0
    ema: float = 0.998
    seed: int = 0
    expect: str = ""


# What the presets of stage 2 share.
THROUGH_THE_GENERATOR: dict[str, Any] = {
    "real_share": 0.375,
    "warped_share": 0.25,
    "start": "restore",
    "spatial": True,
    "identity_weight": 0.0,
    "prior_weight": 4.0,
}
# What those have in common that train the component dictionary and the styles.
WITH_THE_DICTIONARY: dict[str, Any] = {
    **THROUGH_THE_GENERATOR,
    "head": "head_256",
    "style_slots": 9,
    "atoms": 32,
    "learning_rate": 2e-4,
    "warmup": 100,
    "energy_weight": 2.0,
    "person_weight": 3.0,
    "grid_weight": 60.0,
    "components_weight": 1.5,
    "ema": 0.995,
}
# What those have in common that also see old photographs: the person counts twice as much.
WITH_OLD_PHOTOGRAPHS: dict[str, Any] = {
    **WITH_THE_DICTIONARY,
    "warped_share": 0.125,
    "old_share": 0.25,
    "recipe": "training_mild",
    "added_rate": 5.0,
    "person_weight": 6.0,
    "landmarks_weight": 15.0,
    "consistency_weight": 4.0,
}
# What the ablations share: short, and without a critic, whose pull differs from run to run.
ABLATION: dict[str, Any] = {
    **WITH_THE_DICTIONARY,
    "images": 1_600,
    "recipe": "training_mild",
    "added_rate": 10.0,
    "learning_rate": 3e-4,
    "landmarks_weight": 9.0,
    "components_weight": 0.0,
    "ema": 0.98,
    "seed": 7,
}
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("restore", images=32_000),
        # Goes on with the checkpoint of "restore": more real faces, and the identity network's maps count ten times.
        Preset("restore-finish", images=30_000, real_share=0.375, identity_weight=1.5, identity_from=0),
        # Stage 2: from the weights of the first stage, through the generator.
        Preset(
            "restore-prior",
            **THROUGH_THE_GENERATOR,
            images=13_500,
            learning_rate=3e-4,
            features_weight=1.0,
        ),
        # Goes on from there: the 256 px head is a fifth faster, and the shape of the face counts three times.
        Preset(
            "restore-shape",
            **THROUGH_THE_GENERATOR,
            images=15_000,
            head="head_256",
            learning_rate=3e-4,
            landmarks_weight=9.0,
            seed=1,
        ),
        # Its last part: takes the fine grids away that please the other losses.
        Preset(
            "restore-natural",
            **THROUGH_THE_GENERATOR,
            images=3_600,
            head="head_256",
            learning_rate=1e-4,
            warmup=50,
            energy_weight=2.0,
            landmarks_weight=6.0,
            grid_weight=60.0,
            adversarial_weight=1.0,
            ema=0.99,
            seed=2,
        ),
        # From there, with the component dictionary and a latent for every style layer; who it is counts thrice.
        Preset(
            "restore-dictionary",
            **WITH_THE_DICTIONARY,
            images=7_000,
            landmarks_weight=9.0,
            seed=4,
        ),
        # The same again, with more weight on the shape, and a higher rate for what had learned next to nothing.
        Preset(
            "restore-further",
            **WITH_THE_DICTIONARY,
            images=7_300,
            recipe="training_mild",
            added_rate=5.0,
            landmarks_weight=15.0,
            seed=5,
        ),
        # And once more, from the mean of that and of what came before; the shape counts twice as much again.
        Preset(
            "restore-points",
            **WITH_THE_DICTIONARY,
            images=5_600,
            recipe="training_mild",
            added_rate=5.0,
            landmarks_weight=30.0,
            seed=6,
        ),
        # From there, with old photographs that have no clean version; the person counts twice as much, the shape half.
        Preset(
            "restore-old",
            **WITH_OLD_PHOTOGRAPHS,
            images=6_000,
            seed=8,
        ),
        # The same again, from the mean of that and of what came before.
        Preset(
            "restore-older",
            **WITH_OLD_PHOTOGRAPHS,
            images=4_400,
            seed=9,
        ),
        # The scale and shift of the 256 px map alone, which the 512 px head draws on; everything else stays.
        Preset(
            "restore-fine",
            **dict(WITH_OLD_PHOTOGRAPHS, head="head_512"),
            images=2_800,
            fine=True,
            trained="to_fine.",
            fine_weight=4.0,
            seed=10,
        ),
        # All but that map again, with one more real face in every batch. Its weights were not taken (docs/training.md).
        Preset(
            "restore-longer",
            **dict(WITH_OLD_PHOTOGRAPHS, real_share=0.5),
            images=5_200,
            fine=True,
            seed=11,
        ),
        # From the weights of stage 1, to be told apart: each part left out in turn, see docs/training.md.
        Preset("restore-whole", **ABLATION),
        Preset("restore-without-dictionary", **dict(ABLATION, atoms=0)),
        Preset("restore-without-styles", **dict(ABLATION, style_slots=0)),
        Preset("restore-without-spatial", **dict(ABLATION, spatial=False)),
        Preset("restore-without-real", **dict(ABLATION, real_share=0.0)),
        Preset("restore-tiny", images=64, batch=4, warmup=2, identity_from=32),
    )
}


@dataclass(frozen=True)
class FinderPreset:
    """One training of the face finder.

    Attributes:
        scenes: pictures seen over the whole training; the learning rate falls to its end by then.
        batch: of them in one step.
        faces: kinds of faces in the bank, and the share of each among the faces that are pasted: generated ones as they
            come, generated ones turned aside, real ones in colour, real studio portraits, real prints of before 1940.
        turned: shards of 256 faces that are turned.
        learning_rate: its peak, after `warmup` steps; cosine to 1 % of it.
        ema: of the averaged weights, which are what is used.
        seed: of everything that is drawn.
        expect: what the finished weights should reach, for whoever repeats it.
    """

    name: str
    scenes: int
    batch: int = 16
    faces: tuple[tuple[str, float], ...] = (
        *(("generated", 0.45), ("turned", 0.2), ("clean", 0.13), ("studio", 0.07), ("old", 0.15)),
    )
    turned: int = 12
    learning_rate: float = 2e-3
    warmup: int = 200
    ema: float = 0.999
    seed: int = 0
    expect: str = ""


FINDER = FinderPreset("finder", scenes=48_000)
