"""`zoomiqa card`: the assessment of a photograph as one picture, or a map of a signal over it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomiqa.cli import common
from zoomiqa.cli.assessor import add_assessor_options, input_files, spec_from

if TYPE_CHECKING:
    from zoomiqa.imaging import Picture

_EXAMPLES = """
examples:
  zoomiqa card photo.jpg --out card.png
  zoomiqa card photo.jpg --out noise.png --map noise_sigma
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "card",
        help="draw the assessment as a picture, or a map of a signal",
        epilog=_EXAMPLES,
        description="Assess one photograph and draw the reasoning beside it, or a map of a measured signal over it.",
    )
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="the photograph")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the picture to write, best a .png")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    parser.add_argument("--title", help="over the card (default: the file's name)")
    parser.add_argument("--map", metavar="SIGNAL", help="draw this signal's map; a wrong name lists those there are")
    add_assessor_options(parser)
    common.add_limit_options(parser)
    parser.set_defaults(command=card)


def card(arguments: argparse.Namespace) -> int:
    from zoomiqa.assessors import create_assessor
    from zoomiqa.drawing import draw_card
    from zoomiqa.imaging import open_picture, save_picture
    from zoomiqa.imaging.saving import check_picture_target

    place = {"overwrite": arguments.overwrite, "protected": [arguments.photo, *input_files(arguments)]}
    check_picture_target(arguments.out, **place)
    limits = common.limits_from(arguments)
    photo = open_picture(arguments.photo, limits=limits, allow_truncated=arguments.allow_truncated)
    if arguments.map is not None:
        drawn = _draw_map_of(photo, arguments.map)
    else:
        assessment = next(iter(create_assessor(spec_from(arguments, limits)).assess([photo])))
        if assessment.error is not None:
            common.complain_of("zoomiqa", assessment.error)
            return common.EXIT_SOME_FAILED
        drawn = draw_card(photo, assessment, title=arguments.title)
    save_picture(drawn, arguments.out, **place)
    common.print_path(arguments.out)
    return common.EXIT_OK


def _draw_map_of(photo: Picture, name: str) -> Picture:
    from zoomiqa.drawing import draw_map
    from zoomiqa.errors import OptionInvalid
    from zoomiqa.imaging.signals import SIGNALS, measure

    signals = measure(photo.pixels)
    if name not in signals.maps:
        known = ", ".join(sorted(signals.maps)) or "none"
        raise OptionInvalid("this picture has no map of that name", name, f"it has {known}")
    info = SIGNALS[name]
    return draw_map(photo, signals.maps[name], title=f"{name}: {info.meaning}", unit=info.unit)
