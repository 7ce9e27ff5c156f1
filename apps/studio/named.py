"""Endpoints for `gradio_client`: `/assess`, `/prompts`, `/restore`, `/score`. Names and parameters are stable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from zoomiqa.errors import ZoomIQAError

from ..service.errors import for_strangers  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.store import Job  # noqa: TID252
from ..service.tasks import ENCODERS  # noqa: TID252
from .actions import client_of
from .handlers import Handlers
from .uploads import picture_input


def add_endpoints(handlers: Handlers, default_restorer: str) -> None:
    """Endpoints for `gradio_client`: their names and parameters are stable."""
    with gr.Group(visible=False):
        fields: dict[str, Any] = {
            "picture": picture_input(label="picture"),
            "before": picture_input(label="before"),
            "after": picture_input(label="after"),
            "assessor": gr.Textbox("", label="assessor (none: the default)"),
            "question": gr.Textbox("", label="question (none: the assessor's own)"),
            "encoder": gr.Dropdown(list(ENCODERS), value="clip", label="encoder"),
            "restorer": gr.Textbox(default_restorer, label="restorer"),
            "positive": gr.Textbox("", label="wanted phrases, one a line (none: the assessment's)"),
            "negative": gr.Textbox("", label="phrases to be gone, one a line (none: the assessment's)"),
            "strength": gr.Number(1.0, label="strength"),
            "seed": gr.Number(42, label="seed", precision=0),
        }
        answer = gr.JSON(label="record")
        restored = gr.File(label="restored")
        button = gr.Button()

    async def assess(request: gr.Request, picture: str, assessor: str, question: str) -> Any:
        """Assess a picture; the assessment as a record."""
        options = {"assessor": assessor, "question": question}
        return (await _whole(handlers, "assess", options, [picture], request))["assessment"]

    async def prompts(request: gr.Request, picture: str, encoder: str) -> Any:
        """Assess a picture and split the words into prompts within an encoder's budget."""
        return await _whole(handlers, "prompts", {"encoder": encoder}, [picture], request)

    async def restore(
        request: gr.Request, picture: str, restorer: str, positive: str, negative: str, strength: float, seed: int
    ) -> Any:
        """Restore a picture; the kept picture as a file, and the record."""
        options = {
            "restorer": restorer,
            "positive": positive or None,
            "negative": negative or None,
            "strength": strength,
            "seed": seed,
        }
        done = await _whole(handlers, "restore", options, [picture], request)
        return done["path"], done["record"]

    async def score(request: gr.Request, before: str, after: str) -> Any:
        """Compare a picture before and after; one row for each metric."""
        return (await _whole(handlers, "score", {}, [before, after], request))["scores"]

    for name, handler, inputs, outputs in (
        ("assess", assess, ("picture", "assessor", "question"), [answer]),
        ("prompts", prompts, ("picture", "encoder"), [answer]),
        ("restore", restore, ("picture", "restorer", "positive", "negative", "strength", "seed"), [restored, answer]),
        ("score", score, ("before", "after"), [answer]),
    ):
        button.click(handler, [fields[field] for field in inputs], outputs, api_name=name, show_progress="hidden")


async def _whole(
    handlers: Handlers, kind: str, options: Mapping[str, Any], files: list[str | None], request: gr.Request
) -> dict[str, Any]:
    """A job's result; its failure as an error that a client sees."""
    try:
        job: Job = await handlers.whole(kind, options, files, client_of(request))
    except ZoomIQAError as error:
        shown = for_strangers(error)
        raise gr.Error(f"{shown['code']}: {shown['message']}") from None
    if job.error is not None:
        raise gr.Error(f"{job.error['code']}: {job.error['message']}")
    result = _named(dict(job.result or {}))
    if kind == "restore":
        result["path"] = str(handlers.desk.file(job.id, result["files"]["picture"]))
    return result


def _named(value: Any) -> Any:
    """`value` with "name" for "path" in it: Gradio's client takes whatever has a path for a file, and asks for it."""
    if isinstance(value, dict):
        return {"name" if key == "path" else key: _named(item) for key, item in value.items()}
    return [_named(item) for item in value] if isinstance(value, list) else value
