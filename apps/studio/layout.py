"""What stands where, without any action. It must not know jobs or how anything is made.

Each function lays out one area of the page, inside whatever is open, and gives its parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from restore_bridge.color import COLOR_FIX_CHOICES
from restore_bridge.report import HONESTY

from ..service.settings import ServiceSettings  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.tasks import FORMATS, MOST_CANDIDATES, MOST_ROUNDS, PREPASSES  # noqa: TID252
from . import views
from .handlers import CHOOSE, is_embedded
from .samples import Sample
from .uploads import picture_input, pictures_input

PRESETS: Mapping[str, Mapping[str, float]] = json.loads((Path(__file__).parent / "data" / "presets.json").read_text())
_DEFAULT_PRESET = "Balanced"


@dataclass(frozen=True)
class PictureArea:
    """The photograph, what was looked at in it, and who looks."""

    place: Any
    picture: Any
    stage: Any
    samples: list[Any]
    assess: Any
    cancel: Any
    another: Any
    assessor: Any
    question: Any
    at_once: Any
    maps: Any
    signals: Any


@dataclass(frozen=True)
class WordsArea:
    """The rating and the reasoning."""

    rating: Any
    reasoning: Any


@dataclass(frozen=True)
class RestorationArea:
    """The phrases, how to restore, and how far it is."""

    positive: Any
    negative: Any
    preset: Any
    choices: dict[str, Any]
    """Options of a restoration by their names."""

    sent: Any
    restore: Any
    progress: Any


@dataclass(frozen=True)
class BatchArea:
    """Many photographs, and a row for each."""

    pictures: Any
    what: Any
    start: Any
    stop: Any
    table: Any
    csv: Any


def picture_area(settings: ServiceSettings, samples: Sequence[Sample]) -> PictureArea:
    """The first column."""
    with gr.Column(min_width=330, elem_classes="zq-area"):
        gr.HTML("<h2>1 · Picture</h2>")
        # For the input itself no event returns an update, nor is it left out of a returned mapping:
        # Gradio would put one without our checks (`uploads`) in its place, for that page.
        with gr.Column(elem_id="zq-picture-place") as place:
            picture = picture_input(
                label="Photograph (JPEG, PNG, WEBP, TIFF or BMP)",
                sources=["upload", "clipboard"],
                own_folder=settings.folder / "samples",
                height=300,
                elem_id="zq-picture",
                buttons=["fullscreen"],
            )
        # Always mounted: of an update that shows a part and fills it, Gradio may lose the filling.
        stage = gr.HTML(elem_id="zq-stage")
        with gr.Row(elem_classes="zq-samples"):
            sample_buttons = [
                gr.Button(sample.title, icon=str(sample.icon), size="sm", min_width=120) for sample in samples
            ]
        with gr.Row():
            assess = gr.Button("Assess", variant="primary", elem_id="zq-assess", min_width=110)
            cancel = gr.Button("Cancel", interactive=False, elem_id="zq-cancel", min_width=90)
            another = gr.Button("New picture", elem_id="zq-another", min_width=110)
        with gr.Accordion("Who assesses, and what is asked", open=False):
            assessor = gr.Dropdown(
                list(settings.assessors),
                value=settings.default_assessor,
                label="Assessor",
                filterable=False,
            )
            question = gr.Textbox(label="Your own question (none: the assessor's own)", max_length=500)
            at_once = gr.Checkbox(is_embedded(settings), label="Assess a picture as soon as it is chosen")
        with gr.Accordion("Measured signals and maps", open=False, elem_id="zq-signals-fold"):
            maps = gr.Dropdown(["none"], value="none", label="Map over the picture", elem_id="zq-maps")
            signals = gr.HTML(views.empty("Nothing was measured yet."), elem_id="zq-signals")
    return PictureArea(
        place,
        picture,
        stage,
        sample_buttons,
        assess,
        cancel,
        another,
        assessor,
        question,
        at_once,
        maps,
        signals,
    )


def words_area() -> WordsArea:
    """The second column."""
    with gr.Column(min_width=330, elem_classes="zq-area"):
        gr.HTML("<h2>2 · Assessment</h2>")
        rating = gr.HTML(elem_id="zq-rating")
        reasoning = gr.HTML(
            views.empty(CHOOSE),
            elem_id="zq-reasoning",
        )
    return WordsArea(rating, reasoning)


def restoration_area(restorers: Sequence[str]) -> RestorationArea:
    """The third column; `restorers` are those that are ready, the default first."""
    with gr.Column(min_width=330, elem_classes="zq-area"):
        gr.HTML("<h2>3 · Restoration</h2>")
        positive = gr.Textbox(
            label="Wanted (one phrase a line)",
            lines=3,
            max_lines=8,
            elem_id="zq-positive",
            max_length=4000,
        )
        negative = gr.Textbox(
            label="To be gone (one phrase a line, [place] behind it)",
            lines=3,
            max_lines=8,
            elem_id="zq-negative",
            max_length=4000,
        )
        with gr.Row():
            preset = gr.Radio(list(PRESETS), value=_DEFAULT_PRESET, label="Preset", min_width=200)
        with gr.Row():
            strength = gr.Slider(0.05, 1, value=1, step=0.05, label="Strength", min_width=170)
            seed = gr.Number(42, label="Seed", precision=0, minimum=0, maximum=2**32 - 1, min_width=90)
        with gr.Accordion("More", open=False):
            restorer = gr.Dropdown(list(restorers), value=restorers[0], label="Restorer", filterable=False)
            candidates = gr.Slider(1, MOST_CANDIDATES, value=2, step=1, label="Candidates in a round")
            loop = gr.Slider(1, MOST_ROUNDS, value=1, step=1, label="Rounds at most")
            scale = gr.Radio([1, 2, 4], value=1, label="Enlargement")
            color_fix = gr.Dropdown(
                list(COLOR_FIX_CHOICES),
                value="auto",
                label="Colour held by",
                filterable=False,
            )
            prepass = gr.Dropdown(list(PREPASSES), value="none", label="Pre-pass", filterable=False)
            file_format = gr.Dropdown(list(FORMATS), value="png", label="Format", filterable=False)
        with gr.Accordion("What a prompt encoder gets", open=False):
            sent = gr.HTML(views.empty("Nothing was sent yet."), elem_id="zq-sent")
        restore = gr.Button("Restore", variant="primary", elem_id="zq-restore", interactive=False)
        progress = gr.HTML(elem_id="zq-progress")
    choices = {
        "restorer": restorer,
        "strength": strength,
        "seed": seed,
        "candidates": candidates,
        "loop": loop,
        "scale": scale,
        "color_fix": color_fix,
        "prepass": prepass,
        "format": file_format,
    }
    return RestorationArea(positive, negative, preset, choices, sent, restore, progress)


def batch_area() -> BatchArea:
    """The second tab."""
    with gr.Row(elem_classes="zq-areas"):
        with gr.Column(scale=1, min_width=300, elem_classes="zq-area"):
            pictures = pictures_input(label="Photographs", elem_id="zq-pictures", height=240)
            what = gr.Radio([("Assess", "assess"), ("Assess and restore", "restore")], value="restore", label="Do")
            with gr.Row():
                start = gr.Button("Start", variant="primary", elem_id="zq-batch-start", min_width=100)
                stop = gr.Button("Cancel", interactive=False, elem_id="zq-batch-cancel", min_width=100)
        with gr.Column(scale=3, min_width=330, elem_classes="zq-area"):
            table = gr.HTML(views.empty("One row for each picture appears here."), elem_id="zq-table")
            csv = gr.HTML(elem_id="zq-csv")
    return BatchArea(pictures, what, start, stop, table, csv)


def about_area(settings: ServiceSettings) -> None:
    """The third tab."""
    gr.HTML(f"<p>{HONESTY}</p><h3>Restorers that are not ready here</h3>")
    gr.HTML(views.offers([offer.to_dict() for offer in settings.restorers]))
