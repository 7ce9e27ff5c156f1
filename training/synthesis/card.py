"""The card of a synthetic set: what it is, what it holds, what it must not be taken for. It must not make anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from zoomiqa.imaging.distortions import DISTORTIONS

_LIMITS = (
    "The ratings are no human scores: a regressor fitted on human scores gave them, pooled by the distorted area.",
    "The photos count as clean. What was wrong with them before is not in the truth.",
    "Texts are made of prepared phrases; they teach form, place, kind and strength, not rich language.",
    "Masks know nothing of objects; real flaws follow depth, motion and light.",
)


def card_of(records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], *, version: str) -> dict[str, Any]:
    """The card as data.

    Args:
        records: The journal.
        settings: Those of the run.
        version: Of this project.
    """
    made = [record for record in records if record["error"] is None]
    distorted = [record["truth"] for record in made if record["truth"]["flaw"]]
    trajectories = [record["trajectory"] for record in made]
    ratings = sorted(record["rating"] for record in trajectories)
    return {
        "settings": dict(settings),
        "version": version,
        "samples": len(made),
        "failures": dict(sorted(Counter(record["error"]["code"] for record in records if record["error"]).items())),
        "photos": len({record["photo"]["sha256"] for record in made}),
        "scopes": _counted(record["truth"]["scope"] for record in made),
        "severities": _counted(str(truth["severity"]) for truth in distorted),
        "distortions": _counted(truth["distortion"] for truth in distorted),
        "tasks": _counted(task["task"] for record in made for task in record["perception"]),
        "cases": _counted(record["case"] for record in trajectories),
        "looks": _counted(str(len(record["rounds"])) for record in trajectories),
        "rating": {"least": ratings[0], "median": ratings[len(ratings) // 2], "most": ratings[-1]} if ratings else None,
        "limits": list(_LIMITS),
    }


def _counted(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def page_of(card: Mapping[str, Any]) -> str:
    """The card for people, in Markdown."""
    settings = card["settings"]

    def counts(name: str) -> str:
        return ", ".join(f"{key} {number}" for key, number in card[name].items()) or "none"

    operations = "\n".join(
        f"| {name} | {DISTORTIONS[name].flaw} | {DISTORTIONS[name].meaning} |"
        f" {', '.join(f'{value:g}' for value in DISTORTIONS[name].parameters)} | {card['distortions'].get(name, 0)} |"
        for name in settings["mix"]["distortions"]
    )
    limits = "\n".join(f"- {sentence}" for sentence in card["limits"])
    rating, prompts = card["rating"], settings["prompts"]
    spread = f"{rating['least']:.2f} to {rating['most']:.2f}, median {rating['median']:.2f}" if rating else "none"
    return f"""# Synthetic distortions with known truth

{card["samples"]} pictures from {card["photos"]} photographs, made by `python -m training.synthesis` of zoomiqa
{card["version"]} with seed {settings["seed"]}. Prompt set {prompts["name"]} ({prompts["hash"]}); ratings by
{settings["ratings"]}.

| what | counts |
|---|---|
| scope | {counts("scopes")} |
| severity, 1 just noticeable to 5 strong | {counts("severities")} |
| perception tasks | {counts("tasks")} |
| trajectories: looks | {counts("looks")} |
| what the closer look did | {counts("cases")} |
| ratings | {spread} |
| failures by code | {counts("failures")} |

| distortion | family | parameter | at severity 1 to 5 | samples |
|---|---|---|---|---|
{operations}

`pictures/` and `masks/` (8-bit grey: the share of the distorted pixel in the result; only for local ones);
`perception.jsonl`: question, answer in the reply format, `truth` for rewards by rule; `trajectories.jsonl`: records
that `python -m training.curation` reads; `samples.jsonl`: everything known of each sample. Paths are relative to this
folder.

What it must not be taken for:

{limits}
"""
