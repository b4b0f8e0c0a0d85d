"""Joining a photograph's own estimate with the face that the prior draws, octave by octave.

The estimate is what the damaged photograph says for sure, and its certainty how much of every octave that is
(`studio.networks.cleaner`). The prior's face is sharp everywhere, and agrees with the photograph where it is certain.
Where the estimate holds most of an octave it stays; where it holds little the octave is the drawn face's own. The two
are not averaged over a whole face: two mouths that differ would become a veil. Between the two, a mixture keeps their
energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.imaging.pyramid import collapse, pyramid
from studio.tone import luma

# Certainty at which half of an octave is the prior's, at fidelity 0.5 and at 1; below fidelity 0.5 all moves to the
# prior. Around it the share falls from 1 to 0 over WIDTH.
HALF, HALF_AT_ONE = 0.5, 0.12
WIDTH = 0.4
COARSE_HALF = 0.4  # the same for colours, and for octaves coarser than any whose certainty is known
RICHNESS, WINDOW = (0.7, 1.1), 9  # of a drawn octave over the estimate's: none and all of it is taken; px looked at
MOST_RAISED = 1.5  # of a mixture's amplitude
HEARD = 0.25  # certainty from which on the estimate's energy is a bound
BANDS = 7  # octaves of a picture of 512 px; what is coarser, light and colour of the whole face, stays the estimate's


@dataclass
class Joined:
    """One face out of two.

    Attributes:
        picture: (N,3,S,S) RGB, not clamped.
        invented: (N,1,S,S) in [0,1], which share of the detail there is the prior's: the mean over octaves.
        kept: (N,1,S,S) in [0,1], which share of the finest octave is the estimate's.
    """

    picture: Tensor
    invented: Tensor
    kept: Tensor


def join(estimate: Tensor, certainty: Tensor, prior: Tensor, fidelity: float | Tensor) -> Joined:
    """Take each octave from the estimate where that is certain, else from the prior.

    Colours are certain where the coarsest octave is: noise and blocks that were blurred and enlarged leave blotches of
    colour as large as an eye, while the light of those octaves is right.

    Args:
        estimate: (N,3,S,S) RGB; S a power of two.
        certainty: (N,O,h,w) in [0,1] of the O finest octaves; it decides on the coarser ones by the last.
        prior: (N,3,S,S) RGB, the drawn faces.
        fidelity: 0 shows the prior, in the estimate's light; 0.5 the estimate where it holds half of an octave's energy
            or more; 1 takes from the prior only what the estimate lacks nearly all of. A number, or (N,).

    Returns:
        `Joined`.
    """
    fidelity = torch.as_tensor(fidelity, dtype=estimate.dtype, device=estimate.device).view(-1, 1, 1, 1)
    bands = min(BANDS, estimate.shape[2].bit_length() - 2)
    own, drawn = pyramid(estimate, bands), pyramid(prior, bands)
    count = certainty.shape[1]
    coarse = prior_share(certainty[:, -1:], fidelity, COARSE_HALF)
    joined, shares = [], []
    for k, (e, p) in enumerate(zip(own[:-1], drawn[:-1], strict=True)):
        side, own_light, drawn_light = e.shape[2], luma(e), luma(p)
        colour = sized(coarse, side)
        light = prior_share(sized(certainty[:, [k]], side), fidelity) if k < count else colour
        colour = torch.maximum(light, colour)
        if k < count:
            heard = (sized(certainty[:, [k]], side) / HEARD).clamp(max=1) * (2 * fidelity).clamp(max=1)
            energies = energy(own_light), energy(drawn_light)
            light = light * torch.lerp(torch.ones_like(light), fuller(*energies), heard)
        change = luma(p - e)
        both = own_light + light * change
        if k < count:
            both = as_rich(both, *energies, light)
        joined.append(both + (e - own_light) + colour * (p - e - change))
        shares.append(sized(light, estimate.shape[2]))
    return Joined(collapse([*joined, own[-1]]), torch.stack(shares[:count]).mean(0), 1 - shares[0])


def as_sharp_as_it_is(certainty: Tensor) -> Tensor:
    """Certainties (N,O,h,w) whose finest octave is at least as certain as the next.

    A sharp photograph and a slightly soft one look alike: the finest octave is never certain. A photograph that is
    sure of the next one is sharp enough, and keeps its own.
    """
    return torch.cat([torch.maximum(certainty[:, :1], certainty[:, 1:2]), certainty[:, 1:]], 1)


def prior_share(certainty: Tensor, fidelity: Tensor, half: float = HALF) -> Tensor:
    """How much of an octave is the prior's, (N,1,h,w) in [0,1], for certainties of it and fidelities (N,1,1,1).

    `half` is the certainty at which that is a half, at a fidelity of 0.5.
    """
    upper = (2 * fidelity - 1).clamp(min=0)
    middle = half + upper * (HALF_AT_ONE - half)
    share = (0.5 + (middle - certainty) / WIDTH).clamp(0, 1)
    return torch.lerp(torch.ones_like(share), share, (2 * fidelity).clamp(max=1))


def energy(light: Tensor) -> Tensor:
    """Mean square of an octave of light (N,1,h,w) around each place, (N,1,h,w)."""
    return F.avg_pool2d(light.square(), WINDOW, 1, WINDOW // 2).clamp_min(1e-9)


def as_rich(both: Tensor, own: Tensor, drawn: Tensor, share: Tensor) -> Tensor:
    """A mixed octave (N,1,h,w), as rich as what it was mixed of, whose energies are `own` and `drawn`.

    Two octaves that do not agree cancel where they are added: halves of equal energy keep half of it. The mixture is
    raised to the mean of their energies, by `MOST_RAISED` at the most, so that detail does not sag between the two.
    """
    return both * (torch.lerp(own, drawn, share) / energy(both)).sqrt().clamp(1, MOST_RAISED)


def fuller(own: Tensor, drawn: Tensor) -> Tensor:
    """How far a drawn octave is as rich as the estimate's, of their energies (N,1,h,w), in [0,1].

    An estimate of least error holds too little of an octave, never too much: a drawn octave that is flatter is wrong.
    """
    poor, rich = RICHNESS
    return ((drawn.sqrt() / own.sqrt() - poor) / (rich - poor)).clamp(0, 1)


def sized(x: Tensor, side: int) -> Tensor:
    """Maps (N,C,h,w) at another side, antialiased."""
    if x.shape[2] == side:
        return x
    return F.interpolate(x, size=(side, side), mode="bilinear", antialias=x.shape[2] > side, align_corners=False)
