"""The look: colours and type of the pages, the same as the report's. Fonts are the reader's own; none is fetched."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

STYLE = Path(__file__).parent / "data" / "style.css"


def make_theme() -> gr.themes.Base:
    """Paper and ink by day, slate by night; one blue for what acts, one magenta for what is looked at."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.stone,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_lg,
        text_size=gr.themes.sizes.text_md,
        font=_SANS,
        font_mono=_MONO,
    )
    light = {
        "body_background_fill": "#f4f4f1",
        "body_text_color": "#1d2125",
        "body_text_color_subdued": "#5a646d",
        "background_fill_primary": "#ffffff",
        "background_fill_secondary": "#eef1f4",
        "block_background_fill": "#ffffff",
        "block_border_color": "#dcdcd6",
        "border_color_primary": "#dcdcd6",
        "block_label_background_fill": "#eef1f4",
        "block_label_text_color": "#48525b",
        "block_title_text_color": "#30383f",
        "block_info_text_color": "#5a646d",
        "input_background_fill": "#fbfbf9",
        "input_border_color": "#cfcfc8",
        "input_placeholder_color": "#6b757e",
        "button_primary_background_fill": "#27557f",
        "button_primary_background_fill_hover": "#1d4468",
        "button_primary_text_color": "#ffffff",
        "button_secondary_background_fill": "#e9ebee",
        "button_secondary_background_fill_hover": "#dde1e6",
        "button_secondary_text_color": "#1d2125",
        "link_text_color": "#27557f",
        "slider_color": "#27557f",
    }
    dark = {
        "body_background_fill": "#14171a",
        "body_text_color": "#e8eaec",
        "body_text_color_subdued": "#a3adb6",
        "background_fill_primary": "#1c2024",
        "background_fill_secondary": "#242a30",
        "block_background_fill": "#1c2024",
        "block_border_color": "#31373d",
        "border_color_primary": "#31373d",
        "block_label_background_fill": "#242a30",
        "block_label_text_color": "#b6c0c8",
        "block_title_text_color": "#d5dade",
        "block_info_text_color": "#a3adb6",
        "input_background_fill": "#171a1e",
        "input_border_color": "#3c444b",
        "input_placeholder_color": "#8d98a2",
        "button_primary_background_fill": "#3b7ab2",
        "button_primary_background_fill_hover": "#4c8ec8",
        "button_primary_text_color": "#ffffff",
        "button_secondary_background_fill": "#2a3138",
        "button_secondary_background_fill_hover": "#353e47",
        "button_secondary_text_color": "#e8eaec",
        "link_text_color": "#84b6e2",
        "slider_color": "#5b9bd5",
    }
    return theme.set(**light, **{f"{name}_dark": value for name, value in dark.items()}, block_shadow="none")
