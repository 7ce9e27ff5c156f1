"""What tests of diffusion restorers ask of them."""

from restore_bridge.guidance import split_text
from restore_bridge.prompts import BUDGETS, Prompts
from restore_bridge.restorers import RestoreSettings


def prompts(positive="sharp focus", negative="severe noise", regional=(), encoder="clip-2"):
    return Prompts(positive, negative, tuple(regional), budget=BUDGETS[encoder])


def redraw(restorer, picture, text=None, **settings):
    """A restoration under ready text."""
    return restorer.restore(
        picture, split_text(None, None), prompts=text or prompts(), settings=RestoreSettings(**settings)
    )
