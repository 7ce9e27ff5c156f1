"""What each node takes, gives and does. It must not know ComfyUI: `v1` and `v3` translate.

Pictures come and go as ComfyUI holds them: float tensors B×H×W×C, 0..1, RGB. Masks are B×H×W, 1 inside the box. Nodes
keep no state: the same inputs give the same outputs, so that ComfyUI's own cache is right. Ids are never renamed, as
saved workflows name them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from restore_bridge.bridge import RestoreBridge
from restore_bridge.comparison import compare
from restore_bridge.guidance import split_guidance
from restore_bridge.prompts import BUDGETS, compose
from restore_bridge.restorers import restorer_names
from restore_bridge.settings import BridgeSettings
from zoomiqa.assessors import DEFAULT_ASSESSOR, Assessor, builtin_assessors, create_assessor
from zoomiqa.errors import BackendFailed, ImageShapeRefused
from zoomiqa.imaging import Picture, picture_from_array
from zoomiqa.types import Assessment

if TYPE_CHECKING:
    from torch import Tensor

ASSESSOR, ASSESSMENT = "ZOOMIQA_ASSESSOR", "ZOOMIQA_ASSESSMENT"
"""Kinds of our own; only our nodes can be joined by them."""

CATEGORY = "image/quality (Zoom-IQA)"


@dataclass(frozen=True, slots=True)
class Input:
    """An input: `kind` is ComfyUI's (IMAGE, STRING, INT, FLOAT, COMBO) or one of ours."""

    name: str
    kind: str
    tooltip: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """`default`, `min`, `max`, `step`, `multiline`, and `options` of a COMBO."""

    optional: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """An output; `many` gives a list with an entry for each picture of the batch."""

    name: str
    kind: str
    tooltip: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A node, as both interfaces need it."""

    id: str
    title: str
    description: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    run: Callable[..., tuple[Any, ...]]
    """Takes the inputs by name; optional ones may be missing."""


def to_pictures(images: Tensor) -> list[Picture]:
    """The pictures of a batch.

    Raises:
        ImageShapeRefused: it is no B×H×W×C with 1, 3 or 4 channels.
    """
    values = np.asarray(images.detach().float().cpu())
    if values.ndim != 4 or values.shape[3] not in (1, 3, 4):
        raise ImageShapeRefused("an IMAGE must be B x H x W x C", values.shape, "join an image output")
    return [picture_from_array(np.clip(each, 0, 1), name=f"image {index + 1}") for index, each in enumerate(values)]


def to_tensor(pictures: list[Picture]) -> Tensor:
    """A batch of pictures of one size."""
    import torch

    return torch.from_numpy(np.stack([picture.pixels for picture in pictures]).astype(np.float32) / 255)


def box_mask(assessment: Assessment) -> Tensor:
    """1×H×W, 1 inside the region that was zoomed into; nothing where there is none."""
    import torch

    if assessment.image is None:
        raise BackendFailed("the assessment names no picture", None, "assess an image first")
    mask = torch.zeros(1, assessment.image.height, assessment.image.width)
    if assessment.box is not None:
        box = assessment.box
        mask[:, box.y1 : box.y2, box.x1 : box.x2] = 1
    return mask


def load_assessor(name: str, model: str = "", base_url: str = "") -> tuple[Assessor]:
    """The assessor; a model is loaded when it is first asked."""
    options = {key: value for key, value in (("model", model), ("base_url", base_url)) if value.strip()}
    return (create_assessor(name, **options),)


def assess(image: Tensor, assessor: Assessor | None = None) -> tuple[list[Any], ...]:
    """One entry for each picture, in every list."""
    done = list((assessor or create_assessor()).assess(to_pictures(image)))
    for each in done:
        if each.error:
            raise BackendFailed("a picture could not be assessed", each.error["message"], each.error["code"])
    return (
        [each.rating for each in done],
        [reasoning(each) for each in done],
        [each.positive or "" for each in done],
        [each.negative or "" for each in done],
        [box_mask(each) for each in done],
        done,
    )


def reasoning(assessment: Assessment) -> str:
    """The four sections as one text."""
    titles = {"summary": "Summary", "directions": "Directions for improvement", "issues": "Issues to avoid"}
    return "\n\n".join(
        f"{titles.get(name, 'Decision and rationale')}\n{text}"
        for name, text in assessment.sections.to_dict().items()
        if text
    )


def split_prompts(
    assessment: Assessment, encoder: str, prompt: str = "", negative_prompt: str = ""
) -> tuple[str, str, str]:
    """Both prompts, and what had no room."""
    guidance = split_guidance(assessment, prompt=prompt or None, negative=negative_prompt or None)
    prompts = compose(guidance, encoder, regions="folded")
    return (
        prompts.positive,
        prompts.negative,
        "\n".join(f"{cut.side}: {cut.text} ({cut.reason})" for cut in prompts.cut),
    )


def restore(
    image: Tensor,
    restorer: str,
    strength: float,
    candidates: int,
    scale: int,
    seed: int,
    assessor: Assessor | None = None,
    prompt: str = "",
    negative_prompt: str = "",
) -> tuple[Tensor, list[str], str]:
    """Every picture of the batch; where one keeps its original at another scale, it is enlarged with Lanczos."""
    settings = BridgeSettings(
        restorer=restorer,
        strength=strength,
        candidates=candidates,
        scale=scale,
        seed=seed,
        prompt=prompt or None,
        negative=negative_prompt or None,
    )
    bridge = RestoreBridge(assessor, settings)
    kept, reports = [], []
    for picture in to_pictures(image):
        result = bridge.run(picture)
        if result.error:
            raise BackendFailed("a picture could not be restored", result.error["message"], result.error["code"])
        kept.append(_at_scale(result.picture, (picture.width * scale, picture.height * scale)))
        reports.append(result.to_dict())
    said = [f"kept the {report['kept']} picture: {report['reason']}" for report in reports]
    return to_tensor(kept), said, json.dumps(reports, indent=2, ensure_ascii=False)


def _at_scale(picture: Picture, size: tuple[int, int]) -> Picture:
    """A batch has one size, whichever pictures were kept."""
    if picture.size == size:
        return picture
    from PIL import Image

    resized = Image.fromarray(picture.pixels).resize(size, Image.Resampling.LANCZOS)
    return picture.with_pixels(np.asarray(resized))


def score(before: Tensor, after: Tensor, assessor: Assessor | None = None) -> tuple[list[float], list[float], str]:
    """Ratings of each picture before and after, and a table of all measures."""
    first, second = to_pictures(before), to_pictures(after)
    if len(first) != len(second):
        raise ImageShapeRefused(
            "before and after need as many pictures", (len(first), len(second)), "join equal batches"
        )
    judge = assessor or create_assessor()
    ratings: tuple[list[float], list[float]] = ([], [])
    lines = []
    for number, pair in enumerate(zip(first, second, strict=True), start=1):
        assessments = tuple(judge.assess(pair))
        for each, place in zip(assessments, ratings, strict=True):
            if each.rating is None:
                told = each.error or {"message": "no rating", "code": "ZIQ-401"}
                raise BackendFailed("a picture could not be assessed", told["message"], told["code"])
            place.append(each.rating)
        rows = compare(*pair, assessments=(assessments[0], assessments[1]))
        lines += [f"picture {number}", *(f"  {row}" for row in rows)]
    return (*ratings, "\n".join(lines))


_JUDGES = [name for name in builtin_assessors() if name != "scripted"]  # that one plays back what tests wrote
_IMAGE = Input("image", "IMAGE", "the photograph, or a batch")
_JUDGE = Input("assessor", ASSESSOR, "who judges; the embedded one without it", optional=True)
_PROMPT = Input("prompt", "STRING", "your own words on the wanted picture; they come first",
                {"default": "", "multiline": True}, optional=True)  # fmt: skip
_NEGATIVE = Input("negative_prompt", "STRING", "your own words on what to avoid; they come first",
                  {"default": "", "multiline": True}, optional=True)  # fmt: skip

NODES = (
    Node(
        "ZoomIQA_LoadAssessor",
        "Load quality assessor",
        "Chooses who judges: the embedded assessor, a vision-language model here, or one on a server.",
        (
            Input("name", "COMBO", "compact needs no model", {"options": _JUDGES, "default": DEFAULT_ASSESSOR}),
            Input(
                "model", "STRING", "folder or hub id, for transformers, vllm and openai", {"default": ""}, optional=True
            ),
            Input("base_url", "STRING", "address of an OpenAI-compatible server", {"default": ""}, optional=True),
        ),
        (Output("assessor", ASSESSOR, "for the other nodes"),),
        load_assessor,
    ),
    Node(
        "ZoomIQA_Assess",
        "Assess image quality",
        "Looks, zooms into what is uncertain, and says what is wrong, where, and how good the picture is.",
        (_IMAGE, _JUDGE),
        (
            Output("rating", "FLOAT", "1 to 5, higher is better", many=True),
            Output("reasoning", "STRING", "the four sections", many=True),
            Output("positive", "STRING", "Directions for Improvement", many=True),
            Output("negative", "STRING", "Issues to Avoid", many=True),
            Output("region", "MASK", "the region that was zoomed into", many=True),
            Output("assessment", ASSESSMENT, "everything, for Split prompts", many=True),
        ),
        assess,
    ),
    Node(
        "ZoomIQA_SplitPrompts",
        "Split quality prompts",
        "Puts an assessment into a positive and a negative prompt that a text encoder can take.",
        (
            Input("assessment", ASSESSMENT, "of Assess image quality"),
            Input("encoder", "COMBO", "whose budget", {"options": list(BUDGETS), "default": "clip"}),
            _PROMPT,
            _NEGATIVE,
        ),
        (
            Output("positive", "STRING", "for the positive text encoder"),
            Output("negative", "STRING", "for the negative text encoder"),
            Output("left_out", "STRING", "phrases that had no room, with the reason"),
        ),
        split_prompts,
    ),
    Node(
        "ZoomIQA_Restore",
        "Restore under quality guidance",
        "Assesses, restores under that guidance, assesses again, and keeps the better picture.",
        (
            _IMAGE,
            Input(
                "restorer",
                "COMBO",
                "who redraws it",
                {"options": list(restorer_names()), "default": BridgeSettings().restorer},
            ),
            Input(
                "strength",
                "FLOAT",
                "multiplies what the guidance asks for",
                {"default": 1.0, "min": 0.05, "max": 1.0, "step": 0.05},
            ),
            Input("candidates", "INT", "restorations tried", {"default": 2, "min": 1, "max": 16}),
            Input("scale", "INT", "enlargement", {"default": 1, "min": 1, "max": 4}),
            Input("seed", "INT", "of the first candidate", {"default": 42, "min": 0, "max": 2**32 - 1}),
            _JUDGE,
            _PROMPT,
            _NEGATIVE,
        ),
        (
            Output("image", "IMAGE", "the kept pictures"),
            Output("kept", "STRING", "which picture was kept, and why", many=True),
            Output("record", "STRING", "the full record as JSON"),
        ),
        restore,
    ),
    Node(
        "ZoomIQA_Score",
        "Score before and after",
        "Rates two pictures and measures what changed.",
        (Input("before", "IMAGE", "as it came"), Input("after", "IMAGE", "as it is now"), _JUDGE),
        (
            Output("rating_before", "FLOAT", "1 to 5", many=True),
            Output("rating_after", "FLOAT", "1 to 5", many=True),
            Output("table", "STRING", "all measures, with their direction"),
        ),
        score,
    ),
)
