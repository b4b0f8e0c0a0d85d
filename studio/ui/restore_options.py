"""The choices of the Restore tab: three ways in words and in pictures, and the numbers behind them."""

from __future__ import annotations

import gradio as gr

from studio.ui.common import BACKGROUNDS, PRIVATE, SIZES, fidelity_slider, model_picker

REGIONS = [("Automatic", "auto"), ("Face", "face"), ("Whole head", "head"), ("Whole photo", "photo")]
LOOKS = {"Natural": 0.8, "Balanced": 0.5, "Sharpest": 0.2}  # fidelity


def looks() -> gr.Radio:
    """Three ways to restore, in words, over the one number that tells them apart."""
    return gr.Radio(
        list(LOOKS),
        value="Balanced",
        label="How",
        info="Natural stays close to what the photo shows. Sharpest draws more, and invents more. Balanced is between",
    )


def of_look(look: gr.Radio, fidelity: gr.Slider) -> None:
    """Let the three ways and the number under Options follow each other."""
    look.input(lambda name: LOOKS[name], look, fidelity, queue=False, **PRIVATE)
    names = {value: name for name, value in LOOKS.items()}
    fidelity.change(
        lambda value: names.get(round(value, 2)), fidelity, look, queue=False, trigger_mode="always_last", **PRIVATE
    )


def options() -> tuple[list[gr.components.Component], gr.Radio, list[gr.components.Component], gr.Dropdown]:
    """The arguments of the pipeline but for the choice of faces, and those of the file, in the order of `restore`.

    Background, region, seed and model are shown among them, but came later, so that they are later arguments.
    """
    model = model_picker()
    settings = [
        fidelity_slider(),
        gr.Slider(0, 1, 1, step=0.05, label="Strength", info="Share of the restored face in the result"),
        gr.Radio(
            SIZES,
            value="auto",
            label="Size of the result",
            info="Auto enlarges a photo whose faces are too small to show what was restored",
        ),
    ]
    background = gr.Radio(
        BACKGROUNDS,
        value="lanczos",
        label="Around the faces",
        info="Real-ESRGAN sharpens and cleans, but takes a minute or two for each million pixels, and paints grain and "
        "printing screens over. Keep: the photo's own size and pixels",
    )
    drawing = [
        gr.Radio(
            REGIONS,
            value="auto",
            label="What is restored",
            info="The whole photo: the rest is cleaned of noise, blocks and blur, without inventing anything. "
            "Automatic: where the rest needs it",
        ),
        gr.Number(
            0,
            label="Seed",
            precision=0,
            info="Where the damage leaves a choice, another number draws another face that it may have been",
        ),
    ]
    settings += [
        gr.Slider(
            0,
            1,
            0.6,
            step=0.05,
            label="Identity guard",
            info="Largest identity distance allowed; a face above it is blended back. 0 switches the guard off",
        ),
        gr.Checkbox(False, label="Colorize", info="Give a black-and-white photo the model's colours in the faces"),
        gr.Radio(
            [("PNG", "png"), ("TIFF", "tiff"), ("JPEG", "jpg")],
            value="png",
            label="File",
            info="PNG and TIFF keep everything, 16 bits and transparency included. JPEG is smaller and keeps neither",
        ),
        gr.Checkbox(
            True,
            label="Content Credentials",
            info="Sign the file: which faces were restored, by what, with which settings. Not your name, nor the "
            "photo's",
        ),
    ]
    return settings, background, drawing, model


def strip() -> gr.Gallery:
    """The largest face in the three ways, which are shown after the first run, and are there to be clicked."""
    with gr.Column(elem_classes="strip"):
        return gr.Gallery(
            label="The largest face in all three: click one to restore like it",
            format="png",
            columns=len(LOOKS),
            height="auto",
            object_fit="cover",
            allow_preview=False,
            buttons=[],
            interactive=False,
        )


def of_strip(shown: gr.Gallery, look: gr.Radio, fidelity: gr.Slider) -> gr.events.Dependency:
    """Let a click into the strip choose the way that it shows; returns the event, which a run can follow."""

    def choose(event: gr.SelectData) -> list[str | float]:
        return list(list(LOOKS.items())[event.index])

    return shown.select(choose, None, [look, fidelity], queue=False, **PRIVATE)
