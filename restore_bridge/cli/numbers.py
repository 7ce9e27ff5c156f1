"""Lists of numbers on the command line. It must not know what they are for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def integers(text: str) -> tuple[int, ...]:
    """The numbers in "0,1,2"; for `type=` of an argument."""
    return _read(text, int, "whole numbers such as 0,1,2")


def decimals(text: str) -> tuple[float, ...]:
    """The numbers in "0.5,1"; for `type=` of an argument."""
    return _read(text, float, "numbers such as 0.5,1")


def _read(text: str, make: Callable[[str], Number], wanted: str) -> tuple[Number, ...]:
    try:
        return tuple(make(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of {wanted}") from None
