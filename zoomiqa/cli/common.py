"""What both commands share: parsing with near-match advice, errors as one sentence, progress, exit codes.

Exit codes: 0 all done, 1 some pictures failed, 2 wrong usage or configuration, 130 interrupted. Only records go to
stdout; everything for people goes to stderr. Setting `ZOOMIQA_RAISE_ERRORS=1` shows tracebacks.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from zoomiqa.errors import OptionInvalid, OutputFailed, ZoomIQAError
from zoomiqa.limits import PROFILES, Limits
from zoomiqa.text import plain

if TYPE_CHECKING:
    from zoomiqa.batch import OpenOptions

EXIT_OK, EXIT_SOME_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses abbreviations and suggests the option that was meant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _wide_help)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments:"):
            known = [option for action in self._all_actions() for option in action.option_strings]
            for word in message.split(":", 1)[1].split():
                near = difflib.get_close_matches(word.split("=")[0], known, n=1)
                if word.startswith("-") and near:
                    message += f"; did you mean {near[0]}?"
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\nTry '{self.prog} --help'.\n")

    def _all_actions(self) -> list[argparse.Action]:
        actions = list(self._actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    actions.extend(child._actions)
        return actions


def _wide_help(prog: str) -> argparse.HelpFormatter:
    # A fixed width, so that the help shown in the documentation does not depend on a terminal.
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=100)


def run(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace, prog: str) -> int:
    """Carry out a command and turn what goes wrong into a sentence and an exit code."""
    raising = bool(os.environ.get("ZOOMIQA_RAISE_ERRORS"))
    _prepare_streams()
    try:
        code = command(arguments)
        sys.stdout.flush()  # what is left of print
        return code
    except ZoomIQAError as error:
        if raising:
            raise
        complain_of(prog, error.to_dict())
        return EXIT_USAGE
    except KeyboardInterrupt:
        complain(prog, "interrupted; what was written is complete and can be resumed")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, and Python must not complain at exit.
        _throw_stdout_away()
        return EXIT_OK
    except OSError as error:
        if raising or not _is_stdout_failing():
            raise
        _throw_stdout_away()
        reason = error.strerror or "unknown reason"
        full = OutputFailed("standard output cannot be written", reason, "free some space, or send it elsewhere")
        complain_of(prog, full.to_dict())
        return EXIT_USAGE


def _is_stdout_failing() -> bool:
    """Whether a line end cannot be written to stdout. It may stand there needlessly, before a traceback."""
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def _throw_stdout_away() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """Make stdout and stderr take any text: a closed one is thrown away, what cannot be encoded is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as the process
        elif hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")


def has_stdout() -> bool:
    """Whether this process was started with a stdout (`run` puts the null device in the place of a closed one)."""
    return getattr(sys.stdout, "name", None) != os.devnull


def complain(prog: str, sentence: str) -> None:
    print(f"{prog}: {one_line(sentence)}", file=sys.stderr)


def complain_of(prog: str, error: Mapping[str, str], about: str = "") -> None:
    """An error in the form that records have, with its code; `about` comes first."""
    complain(prog, f"{about}{error['type']}[{error['code']}]: {error['message']}")


def one_line(text: str) -> str:
    """Untrusted text (a file's name, an error's words) as one harmless line."""
    return plain(text).replace("\n", "\\n").replace("\t", "\\t")


def at_least_one(option: str, value: int | None) -> None:
    """Refuse a number below one.

    Raises:
        OptionInvalid: it is.
    """
    if value is not None and value < 1:
        raise OptionInvalid(f"{option} must be at least 1", value, "give a positive number")


def read_pairs(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as options; a value that is JSON (a number, true, false, null) is read as such, else as text.

    Raises:
        OptionInvalid: a word without `=`, or a key that is no name or comes twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        name = name.replace("-", "_")
        if not mark or not name.isidentifier():
            raise OptionInvalid(f"{option} needs KEY=VALUE", one_line(pair), "write it without spaces")
        if name in options:
            raise OptionInvalid(f"{option} is given twice for one key", name, "leave one of them out")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def write_line(record: Mapping[str, Any]) -> None:
    """One record as a JSON line on stdout, flushed, in UTF-8 whatever the encoding of stdout."""
    from zoomiqa.records import to_line

    _write(to_line(record))


def print_json(value: Any) -> None:
    """One indented JSON document on stdout; a name that is not UTF-8 takes its escaped form."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _write(text.encode("utf-8", "backslashreplace"))


def print_path(path: Path) -> None:
    """A path on a line of its own, in the bytes that the file system has for it."""
    _write(os.fsencode(path) + b"\n")


def _write(data: bytes) -> None:
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # stdout was replaced by a text stream
        sys.stdout.write(data.decode("utf-8", "replace"))
    else:
        sys.stdout.flush()
        binary.write(data)
    sys.stdout.flush()


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Options on resource limits, alike in every command that opens pictures."""
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--profile",
        choices=sorted(PROFILES),
        default="local",
        help="resource limits: 'local' for your own files, 'server' for strangers' (default: local)",
    )
    group.add_argument(
        "--limit-pixels", type=int, metavar="N", help="largest source picture in pixels (default: 50000000)"
    )
    group.add_argument(
        "--allow-truncated", action="store_true", help="open pictures whose file is cut short, with a note"
    )


def limits_from(arguments: argparse.Namespace) -> Limits:
    """The limits that the options describe; the server profile can only be tightened."""
    from dataclasses import replace

    limits = PROFILES[arguments.profile]
    if arguments.limit_pixels is not None:
        wanted = arguments.limit_pixels
        pixels = min(wanted, limits.pixels) if arguments.profile == "server" else wanted
        limits = replace(limits, pixels=pixels)
    return limits


def open_options_from(arguments: argparse.Namespace) -> OpenOptions:
    """How pictures are opened, by the options on limits."""
    from zoomiqa.batch import OpenOptions

    return OpenOptions(limits=limits_from(arguments), allow_truncated=arguments.allow_truncated)


def add_resume_options(group: argparse._ArgumentGroup, place: str, what: str) -> None:
    """Options on records that are there already, alike in every command that writes them.

    Args:
        group: Of the options on output.
        place: What `--out` is called.
        what: What a record is about, in the plural.
    """
    group.add_argument("--resume", action="store_true", help=f"go on with {place}, skipping {what} already in it")
    group.add_argument(
        "--retry-failed", action="store_true", help=f"with --resume, take those {what} again that failed"
    )
    group.add_argument("--overwrite", action="store_true", help=f"replace {place}")


def check_resume_options(arguments: argparse.Namespace) -> None:
    """Refuse options of `add_resume_options` that go with nothing or contradict each other.

    Raises:
        OptionInvalid: they do.
    """
    if arguments.retry_failed and not arguments.resume:
        raise OptionInvalid("--retry-failed goes with --resume", None, "add --resume")
    if arguments.overwrite and arguments.resume:
        raise OptionInvalid("--overwrite contradicts --resume", None, "leave one of them out")
    if arguments.out is None:
        for option in ("resume", "overwrite"):
            if getattr(arguments, option):
                raise OptionInvalid(f"--{option} goes with --out", None, "say with --out which file is meant")


class Progress:
    """Progress on stderr: a bar on a terminal, lines, JSON, or nothing.

    Args:
        mode: "auto" (a bar on a terminal, else nothing), "plain", "json" or "none".
        total: Steps expected.
        what: What a step is, in the plural.
    """

    def __init__(self, mode: str, total: int, what: str = "pictures") -> None:
        self.total, self.what = total, what
        self.count = 0
        self.earlier = 0
        self.failures: Counter[str] = Counter()
        self._mode = ("bar" if sys.stderr.isatty() else "none") if mode == "auto" else mode
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self._mode == "bar":
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(self.what, total=self.total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add_earlier(self, error: Mapping[str, str] | None) -> None:
        """Count one that an earlier run did, for the summary and the exit code."""
        self.earlier += 1
        if error:
            self.failures[error["code"]] += 1

    def take_over(self, errors: Iterable[Mapping[str, str] | None]) -> None:
        """Count all that an earlier run did, by their failures, and say so. Comes before the first step."""
        for error in errors:
            self.add_earlier(error)
        if not self.earlier:
            return
        failed = sum(self.failures.values())
        text = f"resuming: {self.earlier - failed} of {self.total + self.earlier} {self.what} are done"
        if failed:
            text += f", {failed} failed (--retry-failed takes {'it' if failed == 1 else 'them'} again)"
        complain("zoomiqa", text)

    def step(self, name: str, error: Mapping[str, str] | None = None) -> None:
        """One more is done; `error` is its failure, if it failed."""
        self.count += 1
        if error:
            self.failures[error["code"]] += 1
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])
        elif self._mode == "plain":
            outcome = f"failed: {error['code']} {error['message']}" if error else "done"
            print(f"[{self.count}/{self.total}] {one_line(name)}: {one_line(outcome)}", file=sys.stderr)
        elif self._mode == "json":
            step = {"done": self.count, "total": self.total, "name": name, "error": error["code"] if error else None}
            print(json.dumps(step), file=sys.stderr)

    def summary(self) -> str:
        """One line on how it went."""
        failed = sum(self.failures.values())
        count = self.count + self.earlier
        text = f"{count} {self.what}: {count - failed} done, {failed} failed"
        if failed:
            text += " (" + ", ".join(f"{code} x{count}" for code, count in sorted(self.failures.items())) + ")"
        return text


PROGRESS_MODES = ("auto", "plain", "json", "none")


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        choices=PROGRESS_MODES,
        default="auto",
        help="progress on stderr: a bar on a terminal, plain lines, JSON lines, or none (default: auto)",
    )


def find_inputs(words: Sequence[str]) -> list[Path]:
    """The picture files that the words on a command line name (files, folders, patterns)."""
    from zoomiqa.imaging import find_pictures

    return find_pictures(words)
