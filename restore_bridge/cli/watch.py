"""`restore-bridge watch`: restore what appears in a folder, until told to stop."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from restore_bridge.cli.folder import OutputFolder, add_output_options
from restore_bridge.cli.names import is_result
from restore_bridge.cli.restoration import add_restoration_options
from zoomiqa.cli import common
from zoomiqa.cli.engine import add_engine_options

_EXAMPLES = """
examples:
  restore-bridge watch inbox/ --out restored
  restore-bridge watch /media/card/DCIM --out restored --settle 5 --xmp
  restore-bridge watch inbox/ --out restored --once       # what is there now, for cron
"""

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "watch",
        help="restore what appears in a folder",
        epilog=_EXAMPLES,
        description="Restore the pictures of a folder, then those that appear in it, until interrupted. A file is taken"
        " when it has stopped changing. What the output folder holds already is done and is skipped.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder, searched through")
    how = parser.add_argument_group("watching")
    how.add_argument(
        "--settle",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="a file is complete when it has not changed for so long (default: 2)",
    )
    how.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="time between two looks (default: 1)"
    )
    how.add_argument("--once", action="store_true", help="stop when everything that is there now is done")
    add_restoration_options(parser)
    add_output_options(parser)
    add_engine_options(parser)
    common.add_limit_options(parser)
    parser.set_defaults(command=watch)


def watch(arguments: argparse.Namespace) -> int:
    from zoomiqa.errors import OptionInvalid

    for option in ("settle", "interval"):
        if not 0 <= getattr(arguments, option) <= 3600:
            raise OptionInvalid(f"--{option} must lie in 0..3600 seconds", getattr(arguments, option), "1 is common")
    if not arguments.folder.is_dir():
        raise OptionInvalid("the folder to watch must exist", arguments.folder, "create it first")
    out = OutputFolder(arguments, [arguments.folder])
    files = Settled(arguments.folder, arguments.settle, without=out.path)
    done = failed = 0
    if not arguments.once:
        common.complain("restore-bridge", f"watching {arguments.folder}; Ctrl-C ends it")
    with _ended_politely():
        try:
            while True:
                ready = files.take(time.monotonic())
                if ready:
                    progress = out.add(ready)
                    done += len(ready)
                    failed += progress.failures.total()
                    common.complain("restore-bridge", progress.summary())
                elif arguments.once and not files.waiting:
                    break
                time.sleep(arguments.interval)
        except KeyboardInterrupt:
            if arguments.once:
                raise
            common.complain("restore-bridge", "stopped watching; what was written is complete")
    if done and not arguments.no_report:
        common.print_path(out.write_report())
    return common.EXIT_SOME_FAILED if failed else common.EXIT_OK


class Settled:
    """Knows which files of a folder have stopped changing. It looks at names, sizes and times only.

    Args:
        folder: Searched through, hidden files and folders left out.
        settle: Seconds without a change.
        without: The output folder, wherever it lies; results in it do not count.
    """

    def __init__(self, folder: Path, settle: float, *, without: Path) -> None:
        self._folder, self._settle, self._without = folder, settle, without
        self._seen: dict[Path, tuple[Stamp, float]] = {}
        self._taken: dict[Path, Stamp] = {}
        self.waiting = 0
        """Files that may still be changing, as of the last `take`."""

    def take(self, now: float) -> list[Path]:
        """The files that have become complete, or have changed since they were taken, in order of their names.

        Args:
            now: Seconds on a clock that never goes back.
        """
        present = {path: stamp for path in self._pictures() if (stamp := _stamp(path))}
        fresh = {path: stamp for path, stamp in present.items() if self._taken.get(path) != stamp}
        self._seen = {
            path: known if (known := self._seen.get(path)) and known[0] == stamp else (stamp, now)
            for path, stamp in fresh.items()
        }
        ready = [path for path, (_, since) in self._seen.items() if now - since >= self._settle]
        self._taken |= {path: fresh[path] for path in ready}
        self.waiting = len(fresh) - len(ready)
        return sorted(ready)

    def _pictures(self) -> Iterator[Path]:
        from zoomiqa.errors import ZoomIQAError

        try:
            found = common.find_inputs([str(self._folder)])
        except ZoomIQAError:  # none yet, or the folder is away for a moment (a card reader)
            return
        for path in found:
            inside = path.relative_to(self._folder).parts
            if not any(part.startswith(".") for part in inside) and not is_result(path, self._without):
                yield path


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:  # it went away between two looks
        return None
    return (status.st_size, status.st_mtime_ns)


@contextmanager
def _ended_politely() -> Iterator[None]:
    """A service manager's SIGTERM ends the watch as Ctrl-C does: between two writes, never inside one."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        earlier = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
