"""How the page looks: its theme, and the style sheet over it."""

from __future__ import annotations

import gradio as gr

CSS = """
.gradio-container { width: 100%; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container { --color-accent: var(--primary-700); }
.gradio-container .main { width: 100%; }
.dark .gradio-container, .gradio-container.dark { --color-accent: var(--primary-400); }
.gradio-container input[type=number] { border: 1px solid var(--input-border-color) !important; }
.gradio-container div:has(> .wrap-inner) { border: 1px solid var(--input-border-color) !important; }  /* of lists */
.gradio-container input[type=range]::-webkit-slider-thumb { border: 2px solid var(--color-accent) !important; }
.gradio-container input[type=range]::-moz-range-thumb { border: 2px solid var(--color-accent) !important; }
.upload-container { border: 1px dashed var(--input-border-color) !important; border-radius: var(--radius-md); }
.upload-container > .wrap { padding-top: 22px !important; }  /* under the label, which would lie over the arrow */
.message { font-size: var(--text-lg); }
.message::first-letter, .toast-text::first-letter { text-transform: uppercase; }  /* errors are made for scripts, too */
.overflow-menu > button { width: auto !important; padding: 0 10px !important; gap: 6px; }
.overflow-menu > button::after { content: "More"; }  /* on a phone: the other tabs */
.answer .grid-wrap { max-height: none !important; }  /* every picture is seen */
/* A tab: what is asked beside what comes of it, the rest below; on a phone one below the other. */
.work { display: grid !important; gap: var(--layout-gap) !important; }
.work { grid-template: "ask answer" auto "more answer" 1fr / minmax(0, 2fr) minmax(0, 3fr); }
.work > .ask { grid-area: ask; }
.work > .answer { grid-area: answer; }
.work > .more { grid-area: more; }
.work > * { min-width: 0 !important; }
/* Nothing empty is shown: the message says whether there is a result. */
.answer:not(:has(.said [data-state="done"])) .result { display: none !important; }
.onward { flex-wrap: nowrap !important; align-items: stretch; }
.work:not(:has(.said [data-state="done"])) .strip, .strip:not(:has(img)) { display: none !important; }
.strip .grid-wrap { padding-top: 40px !important; }
.answer:has([data-state="queued"]) .said, .answer:has([data-state="working"]) .said { min-height: 8rem; }
/* Two crops side by side: wide cells, one below the other on phones. Captions in full. */
.pairs .thumbnail-lg { aspect-ratio: 2 / 1.3 !important; }
.gradio-container .caption-label { max-width: 100% !important; white-space: normal !important; }
.faces { overflow-x: auto; contain: inline-size; }  /* scrolls by itself: the page stays as wide as the screen */
.faces table { width: 100%; border-collapse: collapse; }
.faces caption { text-align: left; font-weight: 600; padding: 4px 8px; }
.faces th, .faces td { text-align: left; padding: 6px 8px; border: 0 solid var(--border-color-primary); }
.faces td { border-top-width: 1px !important; }
.gradio-container .grid-wrap { padding-top: 44px !important; }  /* under the label, which lies over the pictures */
.guesses .grid-wrap { max-height: none !important; }
.pairs .grid-wrap { max-height: 560px !important; }
.shelf .grid-wrap { min-height: 0 !important; padding: 8px !important; }
.shelf .grid-container { grid-template-columns: repeat(5, minmax(0, 1fr)) !important; }
.shelf .grid-container { padding: 0 !important; gap: 6px !important; }
.shelf .gallery-item, .shelf .thumbnail-lg { min-width: 0 !important; width: 100% !important; }
.shelf .caption-label { display: none; }  /* the name is the picture's alternative text */
.person h3 { margin: 12px 0 4px; }
.person ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 8px; }
.person ul { list-style: none; padding: 0; margin: 0; }
.person img { width: 100%; height: auto; border-radius: var(--radius-md); }
.person span { display: block; overflow-wrap: anywhere; font-size: var(--text-sm); }
@media (max-width: 768px) {
  .work { grid-template: "ask" auto "answer" auto "more" auto / minmax(0, 1fr); }
}
@media (max-width: 640px) {
  .pairs .grid-container { grid-template-columns: 1fr !important; }
  .guesses .grid-container { grid-template-columns: 1fr 1fr !important; }
  .faces table { font-size: var(--text-sm); }
}
"""


def theme() -> gr.themes.Base:
    """Light and dark as the visitor's system says; system fonts, so that the page asks no other server for any."""
    return gr.themes.Soft(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(  # darker than the theme's own, for a contrast of 4.5 to 1
        background_fill_primary="*neutral_50",  # gradio's `set` forgets this one
        block_label_text_color="*primary_800",
        block_title_text_color="*primary_800",
        block_label_background_fill_dark="*primary_800",
        block_title_background_fill_dark="*primary_800",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_secondary_background_fill_hover_dark="*primary_700",
        # edges of what one fills in or ticks, for a contrast of 3 to 1
        input_border_width="1px",
        input_border_color="*neutral_500",
        input_border_color_dark="*neutral_400",
        input_border_color_focus="*primary_700",
        input_border_color_focus_dark="*primary_300",
        checkbox_border_width_dark="1px",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        checkbox_border_color_hover="*neutral_700",
        checkbox_border_color_hover_dark="*neutral_200",
        checkbox_border_color_focus="*primary_700",
        checkbox_border_color_focus_dark="*primary_300",
        checkbox_border_color_selected="white",
        checkbox_border_color_selected_dark="white",
        checkbox_background_color_selected="*primary_700",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        link_text_color="*primary_800",
        link_text_color_dark="*primary_300",
    )
