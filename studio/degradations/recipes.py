"""Recipes as data, and `degrade`, which draws from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from studio.degradations import ops
from studio.errors import InputError

Range = tuple[float, float]

DOWN = ("bilinear", "bicubic", "area")
UP = ("bilinear", "bicubic")
WEB_DOWN = ("nearest", "box", "bilinear", "bicubic", "lanczos")
WEB_UP = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Ageing:
    """What film, printing and a century did to a photograph before it was scanned. Ranges are drawn uniformly.

    Lengths are pixels of an image of `Recipe.reference_size`.

    Attributes:
        tones: (name, share) of "grey", "sepia", "duotone" (any ink on any paper) and "colour".
        blue_plate: how much the film saw blue instead of luminance, 0–1.
        gain: contrast of the print around the face's own tone; above 1 the highlights blow out.
        lift: its exposure.
        fade_chance: of a faded print.
        black: what black faded to.
        white: what white faded to.
        vignette_chance: of an oval that runs out into black or paper.
        halftone_chance: of a printing screen.
        pitch: of the screen, px.
        hardness: of its dots.
        halftone_amount: 0 no dots, 1 nothing but dots.
        line_share: of screens made of lines (engravings), not dots.
        grain: standard deviation, of [0,1].
        grain_size: px.
        texture: unevenness of the paper, of [0,1], at two scales.
        scratch_chance: of one to `scratches` scratches.
        scratches: at most.
        dust_chance: of one to `specks` specks.
        specks: at most.
        sharpen_chance: of a scanner's unsharp mask.
        crease_chance: of one to `creases` folds and tears from edge to edge.
        creases: at most.
        crease_width: px.
        writing_chance: of one to three words in ink.
        stain_chance: of one to four stains of water.
    """

    tones: tuple[tuple[str, float], ...] = (("grey", 0.55), ("sepia", 0.25), ("duotone", 0.12), ("colour", 0.08))
    blue_plate: Range = (0.0, 1.0)
    gain: Range = (0.75, 1.8)
    lift: Range = (-0.1, 0.2)
    fade_chance: float = 0.5
    black: Range = (0.05, 0.4)
    white: Range = (0.7, 1.0)
    vignette_chance: float = 0.3
    halftone_chance: float = 0.45
    pitch: Range = (4.0, 11.0)
    hardness: Range = (3.0, 14.0)
    halftone_amount: Range = (0.1, 0.7)
    line_share: float = 0.2
    grain: Range = (0.0, 0.08)
    grain_size: Range = (1.5, 6.0)
    texture: Range = (0.0, 0.05)
    scratch_chance: float = 0.25
    scratches: int = 5
    dust_chance: float = 0.35
    specks: int = 40
    sharpen_chance: float = 0.2
    crease_chance: float = 0.0
    creases: int = 3
    crease_width: Range = (2.0, 9.0)
    writing_chance: float = 0.0
    stain_chance: float = 0.0


@dataclass(frozen=True)
class Web:
    """What websites, chat programs and viewers do to a picture, once or twice in a row (second-order damage).

    The idea of damage that is repeated is Real-ESRGAN's (arXiv 2107.10833, section 3.2). Each pass shrinks with any
    kernel, encodes, enlarges with any kernel to any side between, sharpens or smooths, and encodes again, so that
    blocks and halos lie on grids of any pitch. Lengths are pixels of an image of `Recipe.reference_size`.

    Attributes:
        passes: at most.
        side: that a pass shrinks to.
        noise: standard deviation, of 255, of the small picture.
        noise_chance: of any.
        quality: of the first encoder.
        again_chance: of a second encoder, after enlarging.
        again_quality: of it.
        webp_chance: that an encoder is WebP; else JPEG, its colours subsampled in two of three.
        sharpen_chance: of an unsharp mask after enlarging.
        sharpen_radius: px.
        sharpen: its amount.
        median_chance: of a median filter after enlarging.
        beauty_chance: of a filter that smooths skin.
    """

    passes: int = 2
    side: Range = (40.0, 320.0)
    noise: Range = (0.0, 12.0)
    noise_chance: float = 0.4
    quality: tuple[int, int] = (22, 92)
    again_chance: float = 0.6
    again_quality: tuple[int, int] = (35, 95)
    webp_chance: float = 0.15
    sharpen_chance: float = 0.5
    sharpen_radius: Range = (1.0, 8.0)
    sharpen: Range = (0.5, 2.8)
    median_chance: float = 0.2
    beauty_chance: float = 0.12


@dataclass(frozen=True)
class Sensor:
    """What a camera in little light adds at its own pixels, where nothing was shrunk afterwards.

    Noise that grows with the light (shot noise), coarser in the colours than in the light, as cameras leave it after
    interpolating their colours; then what the camera itself does against it.

    Attributes:
        noise: standard deviation at middle grey, of 255; drawn so that each doubling is as likely.
        shot: share of the variance that grows with the light.
        tint: deviation of the colours, relative to that of the light.
        clump: px, standard deviation of the blur of the light's noise; that of the colours is wider by up to `spread`.
        spread: times.
        smear_chance: of the camera's own smoothing.
        sharpen_chance: of an unsharp mask.
        encode_chance: of a JPEG.
        quality: of it.
    """

    noise: Range = (0.7, 45.0)
    shot: Range = (0.0, 0.9)
    tint: Range = (0.0, 1.3)
    clump: Range = (0.0, 0.9)
    spread: Range = (1.0, 3.0)
    smear_chance: float = 0.15
    sharpen_chance: float = 0.2
    encode_chance: float = 0.7
    quality: tuple[int, int] = (35, 97)


@dataclass(frozen=True)
class Recipe:
    """Ranges to draw from, uniformly, anew for every image. None switches a step off.

    Lengths are pixels of an image of `reference_size`; smaller images get the same damage, scaled.

    Attributes:
        name: its key in `RECIPES`.
        sigma: of the blur, px.
        isotropic: chance that the blur is round; else two sigmas and an angle are drawn.
        kernel_size: where the blur is cut off, px, odd.
        factor: the image is taken down to `reference_size / factor`, at most to its own size.
        noise: standard deviation, of 255.
        quality: of the JPEG, 1–100, both ends included.
        colour_shift_chance: of a shift of each channel by up to ± `colour_shift`.
        colour_shift: of 255.
        grey_chance: of a grey result.
        sensor: of the camera, after the blur (the lens).
        ageing: of the print, after the blur and before the rest (the scan).
        web: what websites did to it afterwards.
        copies: how often, at most, the result is copied again with `COPY`.
        choices: (name, share) of other recipes; if there are any, one of them is drawn instead.
    """

    name: str
    sigma: Range | None = None
    isotropic: float = 0.5
    kernel_size: int = 41
    factor: Range | None = None
    noise: Range | None = None
    quality: tuple[int, int] | None = None
    colour_shift_chance: float = 0.0
    colour_shift: float = 20.0
    grey_chance: float = 0.0
    sensor: Sensor | None = None
    ageing: Ageing | None = None
    web: Web | None = None
    copies: int = 0
    choices: tuple[tuple[str, float], ...] = ()
    reference_size: int = 512


# One more generation: a photo of a print, a scan of a book.
COPY = Recipe("copy", (0.3, 2.0), factor=(1, 3), noise=(0, 5), quality=(55, 95))

SEPIA = ((0.16, 0.10, 0.06), (0.97, 0.91, 0.78))  # ink and paper

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # arXiv 2101.04061 §4.1 and its published options
        Recipe(
            "gfpgan",
            (0.1, 10),
            factor=(0.8, 8),
            noise=(0, 20),
            quality=(60, 100),
            colour_shift_chance=0.3,
            grey_chance=0.01,
        ),
        # arXiv 2206.11253 §4.1, the version for large damage
        Recipe("codeformer_large", (1, 15), factor=(4, 30), noise=(0, 20), quality=(30, 80)),
        Recipe("mild", (0.1, 2.5), factor=(1, 2.5), noise=(0, 6), quality=(75, 98)),
        Recipe("none"),
        Recipe("camera", (0.05, 0.8), grey_chance=0.15, sensor=Sensor()),
        Recipe(
            "old_photo",
            (0.3, 5),
            isotropic=0.8,
            factor=(0.8, 6),
            noise=(0, 5),
            quality=(50, 96),
            ageing=Ageing(),
            copies=2,
        ),
        Recipe("web", (0.1, 3), web=Web()),
        Recipe(  # torn, creased and written on, not blurred much: what lies across a face has to be painted over
            "scratched",
            (0.1, 1.5),
            factor=(0.8, 2),
            noise=(0, 4),
            quality=(75, 98),
            ageing=Ageing(
                halftone_chance=0.0,
                scratch_chance=0.7,
                scratches=8,
                dust_chance=0.6,
                crease_chance=0.8,
                writing_chance=0.15,
                stain_chance=0.25,
            ),
        ),
        Recipe(
            "training",
            choices=(("gfpgan", 0.35), ("codeformer_large", 0.3), ("old_photo", 0.25), ("none", 0.1)),
        ),
        Recipe(  # more of the faces of which much is left, so that those of which little is do not rule the losses
            "training_mild",
            choices=(("gfpgan", 0.5), ("codeformer_large", 0.2), ("old_photo", 0.25), ("none", 0.05)),
        ),
        Recipe(
            "training_all",
            choices=(
                ("gfpgan", 0.2),
                ("codeformer_large", 0.18),
                ("web", 0.22),
                ("old_photo", 0.17),
                ("scratched", 0.07),
                ("mild", 0.06),
                ("none", 0.1),
            ),
        ),
    )
}


def degrade(images: Tensor, recipe: str | Recipe, generator: Generator) -> tuple[Tensor, list[dict[str, Any]]]:
    """Damage photographs, each in its own way.

    Args:
        images: (N,3,S,S) float32 RGB in [0,1], any device; the work is done on the CPU.
        recipe: a name of `RECIPES`, or a recipe.
        generator: a CPU generator, drawn from image by image: a batch gives what its images give one after the other.

    Returns:
        (N,3,S,S) float32 in [0,1] on the device of `images`, and for every image the numbers that were drawn:
        `recipe` and `tone` ("colour", "grey", ...) always, the others where the step took place.

    Raises:
        InputError: unknown recipe, or images that are not as above.
    """
    recipe = find_recipe(recipe)
    _check(images, generator)
    results, drawn = [], []
    with torch.no_grad():
        for image in images.cpu().clamp(0, 1):
            result, parameters = _degrade_one(image, recipe, generator)
            results.append(result.clamp(0, 1))
            drawn.append(parameters)
    stacked = torch.stack(results) if results else images.cpu()
    return stacked.to(images.device), drawn


def find_recipe(recipe: str | Recipe) -> Recipe:
    """The recipe of a name; a recipe is given back as it is."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise InputError(f"recipe must be one of {', '.join(RECIPES)}, {recipe!r} was given")
    return RECIPES[recipe]


def _check(images: Tensor, generator: Generator) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.shape[2] < 1:
        raise InputError(f"images must be (N,3,S,S), {tuple(images.shape)} was given: crop to squares first")
    if images.dtype != torch.float32:
        raise InputError(f"images must be float32, {images.dtype} was given: convert with .float()")
    if generator.device.type != "cpu":
        raise InputError(f"generator must be on the CPU, it is on {generator.device}: make it with torch.Generator()")
    if images.numel():
        low, high = (value.item() for value in images.aminmax())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails too
            raise InputError(f"images must be in [0,1], {low:.3g} to {high:.3g} was given: rescale them")


def _degrade_one(image: Tensor, recipe: Recipe, generator: Generator) -> tuple[Tensor, dict[str, Any]]:
    while recipe.choices:
        names, shares = zip(*recipe.choices, strict=True)
        recipe = find_recipe(_choose(names, generator, shares))
    drawn: dict[str, Any] = {"recipe": recipe.name, "tone": "colour"}
    image = _blur(image, recipe, generator, drawn)
    if recipe.sensor:
        image = _sense(image, recipe.sensor, recipe.reference_size, generator, drawn)
    if recipe.ageing:
        image = _age(image, recipe.ageing, recipe.reference_size, generator, drawn)
    image = _scan(image, recipe, generator, drawn)
    if recipe.web:
        image = _web(image, recipe.web, recipe.reference_size, generator, drawn)
    image = _copy_again(image, recipe, generator, drawn)
    if recipe.colour_shift_chance and _chance(recipe.colour_shift_chance, generator):
        reach = (-recipe.colour_shift, recipe.colour_shift)
        drawn["colour_shift"] = tuple(_uniform(reach, generator) for _ in range(3))
        image = ops.colour_shift(image, tuple(shift / 255 for shift in drawn["colour_shift"]))
    if recipe.grey_chance and _chance(recipe.grey_chance, generator):
        drawn["tone"] = "grey"
        image = ops.luminance(image)
    return image.expand(3, -1, -1), drawn


def _blur(image: Tensor, recipe: Recipe, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    if not recipe.sigma:
        return image
    scale = image.shape[-1] / recipe.reference_size
    sigma = second = _uniform(recipe.sigma, generator)
    angle = 0.0
    if not _chance(recipe.isotropic, generator):
        second = _uniform(recipe.sigma, generator)
        angle = drawn["angle"] = _uniform((-180.0, 180.0), generator)
    drawn["sigma"] = (sigma, second)
    radius = round(recipe.kernel_size // 2 * scale)
    return ops.blur(image, sigma * scale, second * scale, math.radians(angle), radius)


def _sense(image: Tensor, sensor: Sensor, reference_size: int, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    """Noise of a camera and what it does against it, see `Sensor`."""
    scale = image.shape[-1] / reference_size
    low, high = (math.log(sigma) for sigma in sensor.noise)
    drawn["noise"] = math.exp(_uniform((low, high), generator))
    drawn["shot"], drawn["tint"] = _uniform(sensor.shot, generator), _uniform(sensor.tint, generator)
    drawn["clump"] = clump = _uniform(sensor.clump, generator)
    drawn["spread"] = spread = _uniform(sensor.spread, generator)
    sizes = clump * scale, max(clump, 0.3) * spread * scale
    image = ops.sensor_noise(image, drawn["noise"] / 255, drawn["shot"], drawn["tint"], sizes, generator)
    if _chance(sensor.smear_chance, generator):
        drawn["smear"] = _uniform((0.02, 0.08), generator)
        image = ops.smooth_skin(image, max(1, round(3 * scale)), drawn["smear"])
    if _chance(sensor.sharpen_chance, generator):
        drawn["sharpen"] = _uniform((0.2, 1.2), generator)
        image = ops.unsharp(image, max(0.5, 1.2 * scale), drawn["sharpen"])
    if _chance(sensor.encode_chance, generator):
        low, high = sensor.quality
        drawn["quality"] = int(torch.randint(low, high + 1, (), generator=generator))
        image = ops.jpeg(image, drawn["quality"], int(torch.randint(0, 3, (), generator=generator)))
    return image


def _age(image: Tensor, ageing: Ageing, reference_size: int, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    """Film, then print, then album, in the order in which they happened."""
    size = image.shape[-1]
    scale = size / reference_size
    names, shares = zip(*ageing.tones, strict=True)
    drawn["tone"] = _choose(names, generator, shares)
    if drawn["tone"] != "colour":
        drawn["blue_plate"] = _uniform(ageing.blue_plate, generator)
        image = _film(image, drawn["blue_plate"])  # (1,S,S) until it is printed

    drawn["gain"], drawn["lift"] = _uniform(ageing.gain, generator), _uniform(ageing.lift, generator)
    image = ops.tone_curve(image, drawn["gain"], drawn["lift"], pivot=_exposure(image))
    drawn["grain"], drawn["grain_size"] = _uniform(ageing.grain, generator), _uniform(ageing.grain_size, generator)
    image = ops.grain(image, drawn["grain"], drawn["grain_size"] * scale, generator)
    if _chance(ageing.vignette_chance, generator):
        image = _vignette(image, generator, drawn)
    if drawn["tone"] != "colour" and _chance(ageing.halftone_chance, generator):
        image = _halftone(image, ageing, scale, generator, drawn)

    image = _texture(image, ageing, generator, drawn)
    if _chance(ageing.fade_chance, generator):
        drawn["black"], drawn["white"] = _uniform(ageing.black, generator), _uniform(ageing.white, generator)
        cover = ops.clouds(size, 3, generator) * 0.5 + 0.5
        image = ops.fade(image, drawn["black"], drawn["white"], cover)
    image = _marks(image, ageing, scale, generator, drawn)
    image = _print(image, generator, drawn)
    image = _wounds(image, ageing, scale, generator, drawn)
    if _chance(ageing.sharpen_chance, generator):
        drawn["sharpen"] = _uniform((0.3, 1.5), generator)
        image = ops.unsharp(image, max(0.6, 3 * scale), drawn["sharpen"])
    return image


def _exposure(image: Tensor) -> float:
    """Mean of the middle, where the face is."""
    quarter = image.shape[-1] // 4
    middle = image[:, quarter : image.shape[-1] - quarter, quarter : image.shape[-1] - quarter]
    return middle.mean().clamp(0.05, 0.95).item()


def _film(image: Tensor, blue_plate: float) -> Tensor:
    """Grey through a film between the eye's sensitivity and that of early plates.

    Exposed for the sitter, as a photographer did: otherwise every dark-skinned face would drown in black, and the
    restorer would learn that it cannot be saved.
    """
    seen, plate = ops.luminance(image), ops.luminance(image, ops.BLUE_PLATE)
    return torch.lerp(seen, (plate * (_exposure(seen) / _exposure(plate))).clamp(0, 1), blue_plate)


def _vignette(image: Tensor, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    drawn["vignette"] = strength = _uniform((0.3, 1.0), generator)
    centre = (_uniform((-0.2, 0.2), generator), _uniform((-0.2, 0.2), generator))
    level = 1.0 if _chance(0.4, generator) else 0.0
    return ops.vignette(image, strength, _uniform((0.5, 0.9), generator), centre, level)


def _halftone(image: Tensor, ageing: Ageing, scale: float, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    pitch = _uniform(ageing.pitch, generator)
    angle = _uniform((0.0, 180.0), generator)
    kind = "lines" if _chance(ageing.line_share, generator) else "dots"
    hardness, amount = _uniform(ageing.hardness, generator), _uniform(ageing.halftone_amount, generator)
    if pitch * scale < 2:  # too fine for these pixels, which see the mean of its dots: the image itself
        return image
    drawn.update(pitch=pitch, screen_angle=angle, screen=kind, hardness=hardness, halftone_amount=amount)
    pattern = ops.screen(image.shape[-1], pitch * scale, math.radians(angle), kind)
    return ops.halftone(image, pattern, hardness, amount)


def _texture(image: Tensor, ageing: Ageing, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    """Fibres of the paper (fine) and blotches (coarse)."""
    drawn["texture"] = amount = _uniform(ageing.texture, generator)
    size = image.shape[-1]
    field = ops.clouds(size, max(1, min(size, 128) - 1), generator) - 0.5 + 1.5 * (ops.clouds(size, 6, generator) - 0.5)
    return (image + 2 * amount * field).clamp(0, 1)


def _marks(image: Tensor, ageing: Ageing, scale: float, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    size = image.shape[-1]
    if _chance(ageing.scratch_chance, generator):
        drawn["scratches"] = int(torch.randint(1, ageing.scratches + 1, (), generator=generator))
        mask = ops.scratches(size, drawn["scratches"], _uniform((0.1, 0.7), generator), generator)
        image = ops.stain(image, mask * _uniform((0.3, 0.9), generator), _uniform((0.75, 1.0), generator))
    if _chance(ageing.dust_chance, generator):
        drawn["specks"] = int(torch.randint(1, ageing.specks + 1, (), generator=generator))
        mask = ops.dust(size, drawn["specks"], _uniform((1.5, 7.0), generator) * scale, generator)
        level = 1.0 if _chance(0.5, generator) else 0.1  # dust on the negative prints white, on the print dark
        image = ops.stain(image, mask * _uniform((0.3, 0.9), generator), level)
    return image


def _wounds(image: Tensor, ageing: Ageing, scale: float, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    """What happened to the finished print: stains of water, folds that show its paper, ink."""
    size = image.shape[-1]
    if ageing.stain_chance and _chance(ageing.stain_chance, generator):
        drawn["stains"] = int(torch.randint(1, 5, (), generator=generator))
        mask = ops.blotches(size, drawn["stains"], generator)
        image = ops.stain(image, mask * _uniform((0.2, 0.6), generator), _uniform((0.2, 0.9), generator))
    if ageing.crease_chance and _chance(ageing.crease_chance, generator):
        drawn["creases"] = int(torch.randint(1, ageing.creases + 1, (), generator=generator))
        mask = ops.creases(size, drawn["creases"], _uniform(ageing.crease_width, generator) * scale, generator)
        image = ops.stain(image, mask * _uniform((0.6, 1.0), generator), _uniform((0.8, 1.0), generator))
    if ageing.writing_chance and _chance(ageing.writing_chance, generator):
        drawn["words"] = int(torch.randint(1, 4, (), generator=generator))
        mask = ops.writing(size, drawn["words"], _uniform((2.0, 5.0), generator) * scale, generator)
        image = ops.stain(image, mask * _uniform((0.6, 1.0), generator), _uniform((0.0, 0.25), generator))
    return image


def _print(image: Tensor, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    """A plane in its ink on its paper -> (3,S,S); colour has three already, grey stays one until the end."""
    if drawn["tone"] in ("colour", "grey"):
        return image
    ink, paper = SEPIA
    if drawn["tone"] == "duotone":
        ink = tuple(_uniform((0.02, 0.3), generator) for _ in range(3))
        paper = tuple(_uniform((0.65, 1.0), generator) for _ in range(3))
    else:
        share = _uniform((0.2, 1.0), generator)  # from a warm grey to full sepia
        ink, paper = (tuple(g + (c - g) * share for c in colour) for colour, g in ((ink, 0.08), (paper, 0.95)))
    drawn["ink"], drawn["paper"] = ink, paper
    return ops.duotone(image, ink, paper)


def _copy_again(image: Tensor, recipe: Recipe, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    if not recipe.copies:
        return image
    count = int(torch.randint(0, recipe.copies + 1, (), generator=generator))
    drawn["copies"] = []
    for _ in range(count):
        again: dict[str, Any] = {"tone": drawn["tone"], "gain": _uniform((1.0, 1.3), generator)}
        image = ops.tone_curve(image, again["gain"], 0.0, pivot=_exposure(image))
        image = _scan(_blur(image, COPY, generator, again), COPY, generator, again)
        drawn["copies"].append(again)
    return image


def _scan(image: Tensor, recipe: Recipe, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    """The rest of the published chain after the blur: down, noise, JPEG, up. Writes its draws into `drawn`."""
    size = image.shape[-1]
    wanted = float(size)  # the low-resolution side, before it is capped to what the image has
    if recipe.factor:
        drawn["factor"] = _uniform(recipe.factor, generator)
        drawn["down"] = _choose(DOWN, generator)
        wanted = recipe.reference_size / drawn["factor"]
        image = ops.resize(image, min(size, max(1, round(wanted))), drawn["down"])
    if recipe.noise:
        drawn["noise"] = _uniform(recipe.noise, generator)
        # Where the cap held, each pixel stands for several of the reference, whose noise averages out.
        sigma = drawn["noise"] / 255 * min(1.0, size / wanted)
        image = ops.noise(image, sigma, generator)
    if recipe.quality:
        low, high = recipe.quality
        drawn["quality"] = int(torch.randint(low, high + 1, (), generator=generator))
        image = ops.jpeg(image, drawn["quality"])
    if recipe.factor:
        drawn["up"] = _choose(UP, generator)
        image = ops.resize(image, size, drawn["up"])
    return image


def _web(image: Tensor, web: Web, reference_size: int, generator: Generator, drawn: dict[str, Any]) -> Tensor:
    """One or two passes through websites, see `Web`. Writes its draws into `drawn["web"]`."""
    size = image.shape[-1]
    scale = size / reference_size
    drawn["web"] = []
    for _ in range(int(torch.randint(1, web.passes + 1, (), generator=generator))):
        low, high = (math.log(side) for side in web.side)
        once: dict[str, Any] = {
            "side": math.exp(_uniform((low, high), generator)),
            "down": _choose(WEB_DOWN, generator),
        }
        small = min(size, max(1, round(once["side"] * scale)))
        image = ops.resample(image, small, once["down"])
        if _chance(web.noise_chance, generator):
            once["noise"] = _uniform(web.noise, generator)
            image = ops.noise(image, once["noise"] / 255, generator)
        image = _encode(image, web, web.quality, generator, once)
        once["up"] = _choose(WEB_UP, generator)
        image = ops.resample(image, round(_uniform((small, size), generator)), once["up"])
        if _chance(web.beauty_chance, generator):
            once["beauty"] = _uniform((0.02, 0.1), generator)
            image = ops.smooth_skin(image, max(1, round(6 * scale)), once["beauty"])
        if _chance(web.median_chance, generator):
            once["median"] = 3 if _chance(0.5, generator) else 5
            image = ops.median(image, once["median"])
        if _chance(web.sharpen_chance, generator):
            once["sharpen"] = _uniform(web.sharpen, generator)
            radius = _uniform(web.sharpen_radius, generator) * scale
            image = ops.unsharp(image, max(0.5, radius), once["sharpen"])
        if _chance(web.again_chance, generator):
            image = _encode(image, web, web.again_quality, generator, once)
        drawn["web"].append(once)
    return ops.resample(image, size, _choose(WEB_UP, generator))


def _encode(image: Tensor, web: Web, quality: tuple[int, int], generator: Generator, drawn: dict[str, Any]) -> Tensor:
    """JPEG or WebP of a drawn quality."""
    value = int(torch.randint(quality[0], quality[1] + 1, (), generator=generator))
    if _chance(web.webp_chance, generator):
        drawn.setdefault("encoders", []).append(f"webp {value}")
        return ops.webp(image, value)
    subsampling = int(torch.randint(0, 3, (), generator=generator))
    drawn.setdefault("encoders", []).append(f"jpeg {value} {('4:4:4', '4:2:2', '4:2:0')[subsampling]}")
    return ops.jpeg(image, value, subsampling)


def _uniform(reach: Range, generator: Generator) -> float:
    low, high = reach
    return low + (high - low) * torch.rand((), generator=generator).item()


def _chance(probability: float, generator: Generator) -> bool:
    return torch.rand((), generator=generator).item() < probability


def _choose(options: tuple[str, ...], generator: Generator, shares: tuple[float, ...] | None = None) -> str:
    weights = torch.tensor(shares) if shares else torch.ones(len(options))
    return options[int(torch.multinomial(weights, 1, generator=generator))]
