"""What is trained, as data. `studio train --list` prints these; `--dry-run` prints one resolved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """One training.

    Attributes:
        images: faces seen over the whole training; the learning rate falls to its end by then.
        batch: faces in one step.
        real_share: share of every batch that comes from the folder of real faces (evidence loss only).
        recipe: degradation recipe, see `studio.degradations`.
        learning_rate: its peak, after `warmup` steps; cosine to 2 % of it.
        features_weight, latent_weight, evidence_weight, identity_weight: of the four losses, see `losses`.
        identity_from: faces seen before the identity loss joins in; it needs a face in the evidence first.
        expect: what the finished weights should reach, for whoever repeats it.
    """

    name: str
    images: int
    batch: int = 8
    real_share: float = 0.25
    recipe: str = "training"
    learning_rate: float = 4e-4
    warmup: int = 200
    features_weight: float = 1.0
    latent_weight: float = 0.3
    evidence_weight: float = 6.0
    identity_weight: float = 0.15
    identity_from: int = 14_000
    ema: float = 0.998
    seed: int = 0
    expect: str = ""


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("restore", images=32_000),
        # Goes on with the checkpoint of "restore": more real faces, and the identity network's maps count ten times.
        Preset("restore-finish", images=30_000, real_share=0.375, identity_weight=1.5, identity_from=0),
        Preset("restore-tiny", images=64, batch=4, warmup=2, identity_from=32),
    )
}
