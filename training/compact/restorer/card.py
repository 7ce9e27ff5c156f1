"""The card of the shipped networks: what they are, what made them, how well they do, what not to expect of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoomiqa import __version__
from zoomiqa.files import atomic_write_text

from .photos import (
    CHOOSING,
    EVERY,
    HELD_BACK,
    LEAST_RATING,
    RATED_SHRINK,
    TONE_RATING,
    TONE_SHRINK,
    Photo,
    digest_of,
    split,
)

LICENCES = {
    "photos": "Kodak24 (free use) and BSDS500 (Berkeley, research use)",
    "rated": "BIQ2021 (Ahmed and Asif, J. Electronic Imaging 31(5), 2022); no licence is stated, research use",
    "bundled": "photographs that come with scikit-image (BSD-3-Clause or public domain)",
}
LIMITS = (
    "Every flaw that it learned from was made by a formula; real ones are mixtures that it has not seen.",
    "Photographs that count as clean were saved as JPEG once; what that cost them is not in the truth.",
    "It was fitted to squared error: where detail is lost it gives the mean of what might have been, which is smooth.",
    "Motion blur is lines of up to 23 pixels; hand-held curves and moving objects were not trained on.",
    "Light is one curve for a place; what is lost in clipped black does not come back.",
)


def write_card(
    run: Path,
    out: Path,
    used: Mapping[str, Sequence[Photo]],
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    made_by: str,
) -> None:
    """Write `card.json` and `README.md` beside the networks in `out`.

    Args:
        run: The folder of the run, with the settings of both fits.
        out: The folder of the networks.
        used: The photographs that were trained on, by origin (keys of `LICENCES`).
        folder: Of the clean photographs, some of which were held back.
        rows: Of `benchmarks/guided_restoration.py`, over the photographs held back; none leaves the figures out.
        made_by: The command.
    """
    card = {
        "version": __version__,
        "made_by": made_by,
        "settings": {
            "detail": _flat(json.loads((run / "detail.json").read_text(encoding="utf-8"))),
            "tone": json.loads((run / "tone.json").read_text(encoding="utf-8")),
        },
        "data": {
            origin: {"photos": len(photos), "sha256": digest_of(photos), "licence": LICENCES[origin]}
            for origin, photos in used.items()
        },
        "held_back": [path.name for path in split(folder, "test")],
        "choosing": [path.name for path in split(folder, "choose")],
        "files": {
            path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
            for path in sorted(out.glob("*.onnx"))
        },
        "figures": figures_of(rows),
        "limits": list(LIMITS),
    }
    atomic_write_text(out / "card.json", json.dumps(card, indent=1) + "\n")
    atomic_write_text(out / "README.md", page_of(card))


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose groups are written out as one level."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= {f"{name}_{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def figures_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means for each family and over all: PSNR, SSIM and NLPD before, with these networks and with `classical`."""
    figures = {}
    for family in dict.fromkeys([*(row["family"] for row in rows), *(["all"] if rows else [])]):
        chosen = [row for row in rows if family in (row["family"], "all")]
        entry: dict[str, float] = {"cases": len(chosen)}
        for name, key in (("input", "input"), ("compact", "own right"), ("classical", "classical right")):
            for place, metric in enumerate(("psnr", "ssim", "nlpd")):
                entry[f"{metric}_{name}"] = round(float(np.mean([row[key][place] for row in chosen])), 3)
        figures[str(family)] = entry
    return figures


def page_of(card: Mapping[str, Any]) -> str:
    """The card for people, in Markdown."""
    data = "\n".join(
        f"| {origin} | {entry['photos']} | {entry['licence']} | {entry['sha256'][:16]} |"
        for origin, entry in card["data"].items()
    )
    files = "\n".join(f"| {name} | {entry['bytes']} | {entry['sha256']} |" for name, entry in card["files"].items())
    figures = "\n".join(
        f"| {family} | {entry['cases']:.0f} | {entry['psnr_input']:.2f} | {entry['psnr_compact']:.2f} |"
        f" {entry['psnr_classical']:.2f} | {entry['ssim_compact']:.3f} | {entry['ssim_classical']:.3f} |"
        f" {entry['nlpd_compact']:.3f} | {entry['nlpd_classical']:.3f} |"
        for family, entry in card["figures"].items()
    )
    settings = "\n".join(
        f"- {name}: " + ", ".join(f"{key} {value}" for key, value in entry.items())
        for name, entry in card["settings"].items()
    )
    limits = "\n".join(f"- {sentence}" for sentence in card["limits"])
    return f"""# Compact restorer {card["version"]}: model card

Two networks in ONNX with 16-bit weights, Apache-2.0. `detail.onnx` takes RGB and maps of what is named where, and gives
RGB: noise, blur, motion blur, compression. Where nothing is named its output is its input. `tone.onnx` takes a
thumbnail of a dark picture and gives the curve that brightens it. Written by `{card["made_by"]}` after the tasks
`detail` and `tone`, whose settings stand below; the words are read by the parser that reads users' words.

## Data

| origin | photos | licence | SHA-256 of all |
|---|---|---|---|
{data}

Of the clean folder's photographs, sorted, every {EVERY}th from number {", ".join(map(str, HELD_BACK))} on was held
back for the figures below ({len(card["held_back"])} photos), and from number {CHOOSING[0]} on for choices
({len(card["choosing"])}). Rated photographs are those of a mean rating of {TONE_RATING} or better, reduced to
{TONE_SHRINK:g} of their size, for tone; detail saw those of {LEAST_RATING} or better, reduced to {RATED_SHRINK:g}. No
photograph is in this package.

## Settings

{settings}

## Figures

Photographs held back, guidance right, means over cases; `benchmarks/guided_restoration.py`, seed 7. NLPD: distance of
normalised Laplacian pyramids, less is better.

| | cases | PSNR before | compact | classical | SSIM compact | classical | NLPD compact | classical |
|---|---|---|---|---|---|---|---|---|
{figures}

## Limits

{limits}

## Files

| file | bytes | SHA-256 |
|---|---|---|
{files}
"""
