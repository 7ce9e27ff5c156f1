"""Sharing Pillow's global state between threads. It must not know files, formats or limits."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class PillowGate:
    """Lets decodes run side by side, but one that accepts cut files alone.

    Pillow's switch for cut files is a module variable. Were it set while another thread decodes, that thread would take
    grey rows for a picture without a word. Pillow's own warnings are silenced while anyone is inside (only those, by
    module name): what they say is either checked here or raised as an error.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._silence: warnings.catch_warnings[None] | None = None

    @contextmanager
    def enter(self, *, lenient: bool = False) -> Iterator[None]:
        """Hold the gate; `lenient` waits until nobody is inside. Must not be nested with a lenient one."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not (lenient and self._inside))
            if not self._inside:
                self._silence = warnings.catch_warnings()
                self._silence.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1
            self._alone = lenient
        try:
            if lenient:
                with _cut_files_accepted():
                    yield
            else:
                yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone = False
                if not self._inside and self._silence is not None:
                    self._silence.__exit__(None, None, None)
                    self._silence = None
                self._changed.notify_all()


@contextmanager
def _cut_files_accepted() -> Iterator[None]:
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


PILLOW_GATE = PillowGate()
"""The only one of a process; every use of Pillow on untrusted bytes goes through it."""
