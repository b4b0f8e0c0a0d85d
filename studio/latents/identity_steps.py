"""Moving latents until the face is a certain person's: gradient steps through generator and identity encoder.

Directions and samplers bring a face near to a person; what is left of the identity distance is taken off here, in a few
steps. All slots of a face move together and pay for the way in Gaussian coordinates, where a step costs as much as it
is rare among generated faces: a picture that fools the encoder without resembling anybody lies far away in them.

The encoder that is followed flatters itself as a judge: say so wherever the distance after these steps is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.faces.pose import yaw_and_pitch
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.latents.measure import embed, place_aligned, trace_aligned
from studio.networks.latent_space import LatentSpace

PULL = 0.03  # of the mean squared way, in spreads, beside the squared identity distance
POSE = 0.02  # of the squared angle, in units of `POSE_UNIT`
POSE_UNIT = 5.0  # degrees
AGE = 0.02  # of the squared years, in units of `AGE_UNIT`
AGE_UNIT = 2.5  # years
CHECK_EVERY = 10  # steps between two looks at the exact picture


@dataclass
class Moved:
    """What the steps found: for each face the one of least cost.

    Attributes:
        w: (N,slots,D) W+ latents.
        before, after: (N,) identity distances of the start and of the result, as drawn while searching.
        step: (N,) which step it was; 0 is the start.
    """

    w: Tensor
    before: Tensor
    after: Tensor
    step: Tensor


def identity_steps(
    draw: Callable[[Tensor], Tensor],
    w: Tensor,
    wanted: Tensor,
    space: LatentSpace,
    finder: FaceFinder,
    encoder: IdentityEncoder,
    *,
    steps: int = 20,
    rate: float = 0.1,
    pull: float = PULL,
    pose: Tensor | None = None,
    age: float | None = None,
    slots: int | None = None,
    exact: Callable[[Tensor], Tensor] | None = None,
    on_step: Callable[[int, Tensor, Tensor], Tensor | None] | None = None,
) -> Moved:
    """Adam on squared identity distance + `pull` · squared way.

    Where a pose is wanted, `POSE` · squared angle off it is added; where an age is, `AGE` · squared years off it.

    A quick way to draw changes the identity vector (the 256 px head by 0.16), and does so alike at every step. With
    `exact` that difference is measured every `CHECK_EVERY` steps and added from then on, so that the exact picture
    comes near; one of those steps is returned.

    Args:
        draw: W+ latents (N,slots,D) to FFHQ-aligned pictures (N,3,S,S) RGB, about [0,1], with gradients; 256 px do.
        w: (N,slots,D) W+ latents to start from.
        wanted: (128,) or (N,128) identity vectors.
        space: the Gaussian coordinates.
        finder: its mesh places the faces.
        encoder: says who they are.
        steps: how many; 20 took the nearest of 2,048 faces from 0.44 to 0.23 (0.29 in the generator's own picture).
        rate: of Adam, in spreads; it falls to a tenth by the last step.
        pull: weight of the mean over all coordinates of the squared way.
        pose: (N,2) yaw and pitch in degrees that the faces should have, or None to let them turn.
        age: in years, as `space.read` reads it, that the faces should have, or None.
        slots: how many slots move, the first ones; the others colour and texture the face. None moves all.
        exact: W+ latents to the pictures that count, as `draw` but slower, without gradients; None: those of `draw`.
        on_step: called with (step, w, distances (N,)) after each step is measured; what it returns, if anything, is
            where the next one starts, as far as slots move.

    Returns:
        The best step of each face, by the cost.
    """
    with torch.inference_mode(False), torch.enable_grad():
        w, wanted = w.detach().clone(), wanted.detach().clone().to(w.device).expand(len(w), -1)
        beside = 0.0  # identity vectors of the exact pictures, less those of the quick ones
        start = space(w)
        moving = (torch.arange(start.shape[1], device=start.device) < (slots or start.shape[1])).view(1, -1, 1)
        way = torch.zeros_like(start[:, :1]).requires_grad_(True)  # (N, 1, D), one for all slots that move
        optimizer = torch.optim.Adam([way], lr=rate, betas=(0.9, 0.99))
        least = w.new_full((len(w),), torch.inf)
        found = Moved(w.clone(), least.clone(), least.clone(), torch.zeros(len(w), dtype=torch.long))
        for step in range(steps + 1):
            optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * step / max(steps, 1))
            moved = space.latents(start + way * moving)
            pictures = draw(moved).clamp(0, 1)
            mesh, _ = trace_aligned(finder, pictures)
            vectors = embed(encoder, pictures, mesh.detach().cpu().numpy())
            looked = exact is None or step % CHECK_EVERY == 0 or step == steps
            if exact is not None and looked:
                beside = look(finder, encoder, exact(moved.detach())) - vectors.detach()
            vectors = vectors + beside
            distance = (vectors - wanted.to(vectors)).norm(dim=1)
            cost = distance.square() + pull * way.square().mean((1, 2))
            if pose is not None:
                off = (yaw_and_pitch(mesh) - pose.to(mesh)) / POSE_UNIT
                cost = cost + POSE * off.square().sum(1)
            if age is not None:
                cost = cost + AGE * ((space.read(vectors) - age) / AGE_UNIT).square()
            better = (cost.detach() < least) & looked
            least[better] = cost.detach()[better]
            found.w[better], found.after[better] = moved.detach()[better], distance.detach()[better]
            found.step[better.cpu()] = step
            if step == 0:
                found.before = distance.detach().clone()
            given = on_step(step, moved.detach(), distance.detach()) if on_step is not None else None
            if step < steps:
                optimizer.zero_grad()
                cost.sum().backward()
                if given is not None:
                    with torch.no_grad():
                        start = start + (space(given) - start - way * moving) * moving
                optimizer.step()
    return found


@torch.no_grad()
def look(finder: FaceFinder, encoder: IdentityEncoder, pictures: Tensor) -> Tensor:
    """Identity vectors (N,128) of FFHQ-aligned pictures (N,3,S,S)."""
    pictures = pictures.clamp(0, 1)
    return embed(encoder, pictures, place_aligned(finder, pictures).mesh)
