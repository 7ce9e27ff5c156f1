"""The card of the fitted parts of the diagnosis: what made them, from what, how well they do, what not to expect."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from zoomiqa import __version__
from zoomiqa.assessors.compact.diagnosis import RULES
from zoomiqa.files import atomic_write_text
from zoomiqa.imaging.signals.canvas import PixelArray, reduced
from zoomiqa.imaging.signals.color import COLOR_LONG_SIDE_PX, measure_color
from zoomiqa.imaging.signals.exposure import measure_exposure

from ...runs import files_digest  # noqa: TID252 - in a wheel it is zoomiqa.training
from . import exposure, light
from .pictures import opened

DATA = {
    "photos": "odd-numbered photographs of Kodak24 (free use) and BSDS500 (Berkeley, research use)",
    "more": "BIQ2021, subset ss03 (Ahmed and Asif, J. Electronic Imaging 31(5), 2022; no licence is stated)",
    "camera": "one in three of BIQ2021's subsets ss01 and ss02: camera pictures, some of them truly dark or bright; no"
    " network was fitted on them",
}
IN_SAMPLE = (
    "Figures of `photos` are in sample: networks and limits were made with them. Those of `camera` are of pictures that"
    " no network was fitted on, but by which the limit of casts was set."
)
LIMITS = (
    "Light and exposure are guessed from one picture; a scene that looks like a flawed one is taken for it.",
    "Every flaw that was learned from was made by a formula, on photographs that were finished ones already.",
    "No network saw a lamp-lit night scene as such; a low-key picture with clear lights is left alone by its lights.",
    "An unsharp place is found where its surroundings are sharp; one that reaches across the frame is a background.",
)
DIGITS = 3


def write(out: Path, clean: list[Path], others: list[Path], camera: list[Path], made_by: str) -> None:
    """Measure the shipped arrays of `out` and write `card.json` beside them.

    Args:
        out: The folder of the arrays; those of the installed package are what is measured.
        clean: The photographs that were fitted on.
        others: The pictures beside them.
        camera: Pictures that no network was fitted on.
        made_by: The command.
    """
    dark, bright = RULES["dark"].limit, RULES["overexposure"].limit
    pictures = {"photos": opened(clean, exposure.SIDE_PX), "camera": opened(camera, exposure.SIDE_PX)}
    made = {"photos": exposure.known(pictures["photos"]), "camera": {"clean": pictures["camera"]}}
    stops = {
        name: {kind: [_stops(picture) for picture in group] for kind, group in kinds.items()}
        for name, kinds in made.items()
    }
    cast = {name: [_cast(picture) for picture in group] for name, group in pictures.items()}
    card = {
        "version": __version__,
        "made_by": f"{made_by}, after the tasks light and exposure",
        "files": {
            path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
            for path in sorted(out.glob("*.npz"))
        },
        "data": described(clean, others, camera),
        "settings": {
            "seeds": "samples 1, networks 0 to 2",
            "light": {"samples": [light.FROM_PHOTOS, light.FROM_MORE], "steps": light.STEPS, "folds": light.FOLDS},
            "exposure": {
                "samples": [exposure.FROM_PHOTOS, exposure.FROM_MORE],
                "steps": exposure.STEPS,
                "folds": exposure.FOLDS,
            },
        },
        "figures": {
            "exposure_beyond_its_limit": {
                name: {kind: round(share, DIGITS) for kind, share in exposure.shares(found, (dark, bright)).items()}
                for name, found in stops.items()
            },
            "cast_of_untouched_ones_beyond_its_limit": {
                name: round(float(np.mean([value >= RULES["cast"].limit for value in found])), DIGITS)
                for name, found in cast.items()
            },
        },
        "limits": [IN_SAMPLE, *LIMITS],
    }
    atomic_write_text(out / "card.json", json.dumps(card, indent=1) + "\n")


def described(clean: list[Path], others: list[Path], camera: list[Path] | None = None) -> dict[str, object]:
    """What was fitted on, and beside it what was not, with digests."""
    groups = {"photos": clean, "more": others} | ({"camera": camera} if camera else {})
    return {
        name: {"pictures": len(paths), "what": DATA[name], "sha256": files_digest(paths)}
        for name, paths in groups.items()
    }


def _stops(picture: PixelArray) -> float:
    return measure_exposure(reduced(picture, COLOR_LONG_SIDE_PX))["exposure"] or 0.0


def _cast(picture: PixelArray) -> float:
    return measure_color(reduced(picture, COLOR_LONG_SIDE_PX))["cast"] or 0.0
