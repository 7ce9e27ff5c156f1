"""From kept trajectories to rows for supervised training (Zoom-IQA, Sec. 3.1.2). It must not know any trainer.

The released protocol rewrites the conversation for the second look, so a trajectory of two looks is two rows: the whole
first reply stands in the second row as history, seen without the picture, and is not trained there. The last message of
a row is its target, and the only one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoomiqa import __version__
from zoomiqa.errors import ReplyUnusable
from zoomiqa.files import atomic_write_bytes, atomic_write_text
from zoomiqa.protocol import PromptSet
from zoomiqa.records import to_line
from zoomiqa.types import ImagePart, Message

from .report import summarize
from .trajectories import is_kept, replay

ROWS, LEFT_OUT = "sft.jsonl", "left_out.jsonl"


def training_rows(record: Mapping[str, Any], prompts: PromptSet) -> list[dict[str, Any]]:
    """The rows of one trajectory, one per look.

    Each has `messages` (`role`, and `content` as a list of `{"type": "text", "text"}` and `{"type": "image"}`), the
    last of which is the target; `images`, one per image part in order: `path` below the image root, `box` (pixels
    x1, y1, x2, y2 of the upright original; `null` is the whole picture) and `size` (width, height) that the crop is
    enlarged to with Lanczos (`null` keeps its own); and `rating`, `ground_truth`, `dataset`, `tool`, `look`, `looks`.

    Raises:
        ReplyUnusable: a reply breaks the format, or the looks do not follow from each other.
    """
    image = record["image"]
    texts = [look["text"] for look in record["rounds"]]
    assessment, asked = replay(texts, (image["width"], image["height"]), record["question"], prompts=prompts)
    if any(note.code == "rounds-exhausted" for note in assessment.notes):
        raise ReplyUnusable("the last reply asks for one more look", record["id"], "make the trajectory again")
    labels = record["evaluation"]
    rows = []
    for look, (messages, text) in enumerate(zip(asked, texts, strict=True), start=1):
        shown = [part for message in messages for part in message.parts if isinstance(part, ImagePart)]
        target = {"role": "assistant", "content": [{"type": "text", "text": text}]}
        rows.append(
            {
                "id": f"{record['id']}/{look}",
                "trajectory": record["id"],
                "look": look,
                "looks": len(texts),
                "messages": [*map(_chat_message, messages), target],
                "images": [_image(image["path"], part) for part in shown],
                "rating": assessment.rounds[look - 1].rating,
                "tool": assessment.rounds[look - 1].tool,
                "ground_truth": labels.get("ground_truth"),
                "dataset": labels.get("dataset"),
            }
        )
    return rows


def _chat_message(message: Message) -> dict[str, Any]:
    content = [
        {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def _image(path: str, part: ImagePart) -> dict[str, Any]:
    return {
        "path": path,
        "box": part.box.to_list() if part.box else None,
        "size": list(part.size) if part.size else None,
    }


def build(records: Iterable[Mapping[str, Any]], out: Path, prompts: PromptSet, image_root: Path) -> dict[str, Any]:
    """Write the data set to the folder `out`, which exists; returns its card.

    Every trajectory is in `sft.jsonl`, or in `left_out.jsonl` with the reasons.
    """
    records = list(records)
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for record in records:
        if not is_kept(record):
            told = [entry for entry in record["curation"] if entry["verdict"] != "keep"]
            reasons = [
                f"{entry['step']}:{reason}" for entry in told for reason in entry["reasons"] or [entry["verdict"]]
            ]
            left_out.append({"id": record["id"], "reasons": reasons})
            continue
        try:
            rows += training_rows(record, prompts)
        except ReplyUnusable as unusable:
            left_out.append({"id": record["id"], "reasons": ["build:format"], "error": unusable.to_dict()})
    card = _card(records, rows, left_out, prompts, image_root)
    _write(out / ROWS, rows)
    _write(out / LEFT_OUT, left_out)
    atomic_write_bytes(out / "card.json", to_line(card))
    atomic_write_text(out / "README.md", _page(card))
    return card


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    atomic_write_bytes(path, lambda file: [file.write(to_line(row)) for row in rows])


def _card(
    records: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    left_out: Sequence[Mapping[str, Any]],
    prompts: PromptSet,
    image_root: Path,
) -> dict[str, Any]:
    finals = [row for row in rows if row["look"] == row["looks"]]
    known = [row for row in finals if row["ground_truth"] is not None]
    errors = [abs(row["rating"] - row["ground_truth"]) for row in known]
    teachers = Counter(
        f"{who['name']} {who['version']}, {who['prompt_set']} ({who['prompt_hash']})"
        for who in (record.get("assessor") for record in records)
        if who
    )
    return {
        "version": __version__,
        "prompts": {"name": prompts.name, "hash": prompts.digest},
        "image_root": image_root.name,
        "trajectories": len(finals),
        "rows": len(rows),
        "looks": _counted(str(row["looks"]) for row in finals),
        "datasets": _counted(str(row["dataset"]) for row in finals),
        "ratings": _counted(f"{int(row['rating'] * 2) / 2:.1f}" for row in finals),
        "mean_absolute_difference_to_people": round(sum(errors) / len(errors), 4) if errors else None,
        "left_out": len(left_out),
        "left_out_reasons": _counted(reason for entry in left_out for reason in entry["reasons"]),
        "teachers": dict(sorted(teachers.items())),
        "steps": summarize(records)["steps"],
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _page(card: Mapping[str, Any]) -> str:
    def counts(name: str) -> str:
        return ", ".join(f"{key}: {number}" for key, number in card[name].items()) or "none"

    lines = [f"| {step['step']} | {step['keep']} | {step['drop']} | {step['failed']} |" for step in card["steps"]]
    head = ["| step | kept | dropped | failed |", "|---|---|---|---|"]
    steps = "\n".join([*head, *lines]) + "\n\n" if lines else ""
    difference = card["mean_absolute_difference_to_people"]
    prompts = card["prompts"]
    return f"""# Grounded rationales for supervised training

{card["trajectories"]} trajectories in {card["rows"]} rows of `{ROWS}`, built by zoomiqa {card["version"]} for the
prompt set {prompts["name"]} ({prompts["hash"]}). Paths are relative to the image root `{card["image_root"]}`.

| what | counts |
|---|---|
| looks | {counts("looks")} |
| data sets | {counts("datasets")} |
| final ratings, from | {counts("ratings")} |
| mean absolute difference to people's scores | {"unknown" if difference is None else difference} |
| teachers | {counts("teachers")} |
| left out, with reasons in `{LEFT_OUT}` | {card["left_out"]} ({counts("left_out_reasons")}) |

{steps}A row is one look. Its last message is the target; earlier replies in it are history and are not trained, because
the second look's context is rewritten and they would be conditioned on no picture. `images` says of each image part
which file, which box (pixels of the upright original) and to what size it is enlarged (Lanczos).

The texts were written by a model or by prepared phrases, not by people; the filters reduce false statements and cannot
remove them. Licences of the pictures are those of their data sets.
"""
