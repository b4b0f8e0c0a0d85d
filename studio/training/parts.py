"""The face parser without labelled pictures: clusters of the generator's cells, named by whoever looks at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from studio import sheets, weights
from studio.errors import InputError
from studio.networks.generator import Generator
from studio.networks.head_parts import PARTS, HeadParts, directions
from studio.networks.restorer import START_BLOCK
from studio.training.clusters import k_means
from studio.training.data import SyntheticFaces

FACES = 240
CLUSTERS = 14
COMPONENTS = 48  # principal components that clusters are found in
SHOWN = 24  # faces on the sheet
SHARPNESS = 4.0  # of the logits, so that cells between two parts stay undecided
EACH_SIDE = 8  # px of a cell on a face of 256


@torch.no_grad()
def whole_faces(synthetic: SyntheticFaces, generator: Generator, count: int) -> tuple[Tensor, Tensor]:
    """The first cached faces of a single latent: pictures (N,3,256,256) uint8, maps after block 3 (N,C,32,32)."""
    same = (synthetic.latents[:, 0] == synthetic.latents[:, 1]).all(1).nonzero()[:count, 0]
    maps = [generator.features(synthetic.latents[i : i + 1, 0], START_BLOCK) for i in same.tolist()]
    pictures = (synthetic.batch(same)[0] * 255).round().byte()
    return pictures, torch.cat(maps)


def clusters(cells: Tensor, count: int = CLUSTERS, seed: int = 0) -> Tensor:
    """k-means over cells (N,C,H,W) of length 1, in their first principal components: labels (N,H,W)."""
    points = cells.permute(0, 2, 3, 1).flatten(0, 2)
    points = points - points.mean(0)
    _, vectors = torch.linalg.eigh(points.T @ points)
    points = points @ vectors[:, -COMPONENTS:]
    centres = k_means(points, count, torch.Generator().manual_seed(seed), 30)
    return torch.cdist(points, centres).argmin(1).view(len(cells), *cells.shape[2:])


def fit(features: Tensor, labels: Tensor, skin: Sequence[int], hair: Sequence[int], seed: int = 0) -> HeadParts:
    """A linear layer that tells the named clusters apart (cross entropy, Adam, 400 steps).

    Args:
        features: (N,C,H,W).
        labels: (N,H,W), see `clusters`.
        skin: clusters of skin.
        hair: clusters of hair; what is in neither is the rest.
        seed: of the order.
    """
    net = HeadParts(features.shape[1])
    layer = net.classify
    with torch.no_grad():
        net.mean.copy_(features.mean((0, 2, 3), keepdim=True))
        net.std.copy_(features.std((0, 2, 3), keepdim=True) + 1e-4)
        layer.weight.zero_()
        layer.bias.zero_()
        cells = directions(features, net.mean, net.std).permute(0, 2, 3, 1).flatten(0, 2)
    wanted = parts_of(labels, skin, hair).flatten()
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(400):
        chosen = torch.randint(len(cells), (8192,), generator=rng)
        loss = F.cross_entropy(SHARPNESS * F.linear(cells[chosen], layer.weight.flatten(1), layer.bias), wanted[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        layer.weight.mul_(SHARPNESS)
        layer.bias.mul_(SHARPNESS)
    return net.eval()


def parts_of(labels: Tensor, skin: Sequence[int], hair: Sequence[int]) -> Tensor:
    """Clusters (N,H,W) to their numbers in `PARTS`."""
    numbers = torch.zeros(int(labels.max()) + 1, dtype=torch.long)
    numbers[list(skin)], numbers[list(hair)] = PARTS.index("skin"), PARTS.index("hair")
    return numbers[labels]


def agreement(net: HeadParts, features: Tensor, labels: Tensor, skin: Sequence[int], hair: Sequence[int]) -> float:
    """Share of cells in which the most likely part is that of the cell's cluster."""
    with torch.no_grad():
        return float((net(features).argmax(1) == parts_of(labels, skin, hair)).float().mean())


def cluster_sheet(pictures: Tensor, labels: Tensor, count: int = CLUSTERS) -> list[list[Tensor]]:
    """Rows of pictures for `sheets.write`: one per cluster, the faces with everything but its cells darkened."""
    faces = pictures[:SHOWN].float() / 255
    large = labels[:SHOWN].repeat_interleave(EACH_SIDE, 1).repeat_interleave(EACH_SIDE, 2)
    return [list(faces * (0.15 + 0.85 * (large == k)[:, None].float())) for k in range(count)]


def make_parts(
    folder: Path,
    faces: Path,
    skin: Sequence[int],
    hair: Sequence[int],
    sheet: Path | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Cluster, show the clusters, and where they are named fit and save the parser.

    Args:
        folder: where the network goes.
        faces: cache of generated faces, see `studio train faces`.
        skin: clusters of skin by number; with `hair`, empty only writes the sheet.
        hair: clusters of hair.
        sheet: where a row per cluster goes, or None.
        report: receives lines of text.

    Raises:
        InputError: a number that is no cluster's, or one that is in both.
    """
    named = [*skin, *hair]
    if len(set(named)) < len(named) or not all(0 <= k < CLUSTERS for k in named) or bool(skin) != bool(hair):
        raise InputError(
            f"skin and hair must be different clusters from 0 to {CLUSTERS - 1}, got {list(skin)} and {list(hair)}: "
            "see the sheet"
        )
    generator = Generator.from_pretrained(weights.path("generator"))
    generator.to(memory_format=torch.channels_last)
    pictures, features = whole_faces(SyntheticFaces(faces), generator, FACES)
    mean, std = features.mean((0, 2, 3), keepdim=True), features.std((0, 2, 3), keepdim=True) + 1e-4
    labels = clusters(directions(features, mean, std))
    if sheet:
        sheets.write(sheet, cluster_sheet(pictures, labels))
        report(f"{CLUSTERS} clusters, a row each from 0: {sheet}")
    if not named:
        return
    learned = len(features) * 5 // 6
    net = fit(features[:learned], labels[:learned], skin, hair)
    share = agreement(net, features[learned:], labels[learned:], skin, hair)
    report(f"{share:.1%} of the cells of {len(features) - learned} other faces are told as they were clustered")
    net.to(torch.float16).save_pretrained(folder)
