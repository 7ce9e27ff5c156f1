"""A plug-in assessor that takes a millisecond, in a form that worker processes find: `install` makes it one.

It rates by brightness, leaves a file named by its process, and dies of a picture of 13x13 pixels.
"""

import os
import signal
import time
from pathlib import Path

from zoomiqa.backends import Capabilities
from zoomiqa.types import Reply

DEADLY = (13, 13)


class FastBackend:
    def __init__(self, *, pids, seconds=0.001):
        # The environment can slow a run down without changing what its records are made with.
        self._seconds = float(os.environ.get("FAST_LOOK_SECONDS", seconds))
        self.capabilities = Capabilities("fast", "1", "Rates by brightness.", batch_size=4, parallel=True)
        Path(pids, str(os.getpid())).touch()

    def generate(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        if request.picture.size == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._seconds)
        rating = 1 + 4 * float(request.picture.pixels.mean()) / 255
        return Reply(
            "<think>Image Quality Summary: S.\nDirections for Improvement: D.\nIssues to Avoid: I.\n"
            "Decision & Rationale: R.</think><answer>"
            f'{{"bbox_2d": [0, 0, 0, 0], "rating": {rating:.2f}, "tool": "final"}}</answer>'
        )


def install(folder):
    """Register the assessor `fast` in `folder`, which is to be on the module path of every process."""
    info = folder / "fast_look-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fast-look\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[zoomiqa.backends]\nfast = fast_look:FastBackend\n")
    (folder / "fast_look.py").write_text(Path(__file__).read_text("utf-8"))
