"""The model card of a saved pipeline: what it is made of, under which licences, and how to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio import weights

if TYPE_CHECKING:
    from studio.base import StudioPipeline

USE = {
    "RestorePipeline": """output = pipeline("photo.jpg")
output.images[0].save("restored.png")""",
    "UpsamplePipeline": """output = pipeline("face-32px.png")
output.images[0]""",
    "GeneratePipeline": """output = pipeline("me.jpg", consent=True)
output.images[0].save("me-generated.png")""",
    "Arc2FacePipeline": """output = pipeline("me.jpg", consent=True)
output.images[0].save("me-generated.png")""",
    "FrontalizePipeline": """output = pipeline("half-profile.jpg", yaw=0)
output.images[0].save("front.png")""",
    "EditPipeline": """output = pipeline("portrait.jpg", smile=1)
output.images[0].save("smiling.png")""",
}
LIMITS = """Faces that come out are likenesses: where the photograph says nothing, a prior fills in. Do not take one as
evidence of who somebody was. Generated and animated people need the consent of whoever they resemble."""


def text(pipeline: StudioPipeline) -> str:
    """Markdown with the front matter that the Hub reads.

    A network is known by its class: one that was trained further has the licence of what it came from at least.
    """
    kinds = {name: type(part).__name__ for name, part in pipeline.components.items() if part is not None}
    entries = {}
    for one in weights.entries().values():
        entries.setdefault(one.network.rpartition(":")[2], one)
    known = {name: entries[kind] for name, kind in kinds.items() if kind in entries}
    commercial = {one.commercial for one in known.values()}
    verdict = "no" if "no" in commercial else "check" if "check" in commercial or len(known) < len(kinds) else "yes"
    rows = [
        f"| {name} | {kind} | {known[name].licence if name in known else 'unknown'} |" for name, kind in kinds.items()
    ]
    name = type(pipeline).__name__
    return "\n".join(
        [
            "---",
            "library_name: diffusers",
            "license: other",
            "tags:",
            "- face-studio",
            "- face-restoration",
            "---",
            "",
            f"# {name}",
            "",
            "A pipeline of face-studio. Its networks, and their licences:",
            "",
            "| part | network | licence |",
            "|---|---|---|",
            *rows,
            "",
            f"Commercial use: {verdict}.",
            "",
            "```python",
            f"from studio import {name}",
            "",
            f'pipeline = {name}.from_pretrained("OWNER/NAME")',
            USE.get(name, "output = pipeline(...)"),
            "```",
            "",
            LIMITS,
            "",
        ]
    )
