"""Pictures that explain pictures: a card of the reasoning, and a map of a signal over the photograph.

They are made to be looked at and sent around; nothing in them is measured here.
"""

from zoomiqa.drawing.card import draw_card
from zoomiqa.drawing.overlay import draw_map
from zoomiqa.drawing.page import Page

__all__ = ["Page", "draw_card", "draw_map"]
