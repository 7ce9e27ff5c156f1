"""`restore-bridge weights convert`: a model's weights as safetensors, so that a pickle need be trusted only once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoomiqa.cli import common

_EXAMPLES = """
examples:
  restore-bridge weights convert model.pth model.safetensors --allow-pickle
  restore-bridge weights convert lxq007/DiffBIR:general_swinir_v1.ckpt swinir.safetensors --allow-pickle
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "weights", help="convert model weights to safetensors", description="Prepare the weights of models."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=common.Parser)
    converter = actions.add_parser(
        "convert",
        help="write a model's tensors as safetensors",
        description="Take a model's tensors out of a checkpoint, without training wrappers and prefixes, and write\n"
        "them as safetensors, which hold data alone and open without a flag. Prints a JSON record.",
        epilog=_EXAMPLES,
    )
    converter.add_argument("source", metavar="IN", help="weights file, or owner/name:file on the hub")
    converter.add_argument("target", metavar="OUT", type=Path, help="new file whose name ends in .safetensors")
    converter.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read a pickle (.pth, .ckpt, .pt, .bin); only tensors and plain containers are read, but use it only on"
        " files whose origin you trust",
    )
    converter.set_defaults(command=convert)


def convert(arguments: argparse.Namespace) -> int:
    from restore_bridge.weights import convert as convert_weights

    done = convert_weights(arguments.source, arguments.target, allow_pickle=arguments.allow_pickle)
    common.print_json(done.to_dict())
    return common.EXIT_OK
