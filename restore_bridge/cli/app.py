"""`restore-bridge app`: the pages and the HTTP service. It must not know what they do; `apps` is imported when run."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from restore_bridge.cli.assessor import add_assessor_options, assessor_from
from restore_bridge.cli.restorer import add_restorer_options, restorer_options
from zoomiqa.cli import common

_EXAMPLES = """
examples:
  restore-bridge app
  restore-bridge app --port 8080 --no-pages
  restore-bridge app --assessor-model Ethanliang99/Zoom-IQA-7B --restorer sdxl-tile
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "app",
        help="pages to assess and restore in a browser, and the same over HTTP",
        epilog=_EXAMPLES,
        description="Serve the pages and the HTTP interface from one process, until it is interrupted.",
    )
    place = parser.add_argument_group("place")
    place.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)"
    )
    place.add_argument("--port", type=int, default=7860, help="port to listen at; 0 takes a free one (default: 7860)")
    place.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the jobs (default: restore-bridge in the user's state folder)",
    )
    place.add_argument(
        "--trust-proxy", metavar="ADDRESS", help="a reverse proxy whose word on the client's address is taken"
    )
    place.add_argument("--no-pages", action="store_true", help="only the HTTP interface")
    work = parser.add_argument_group("work")
    work.add_argument(
        "--workers", type=int, metavar="N", help="processes that work (default: one a core; one where a model is used)"
    )
    work.add_argument("--waiting", type=int, default=64, metavar="N", help="jobs that may wait (default: 64)")
    work.add_argument(
        "--waiting-per-client", type=int, default=24, metavar="N", help="of these, jobs of one client (default: 24)"
    )
    work.add_argument("--job-seconds", type=float, default=600.0, metavar="S", help="time for one job (default: 600)")
    work.add_argument(
        "--keep-minutes", type=float, default=60.0, metavar="M", help="how long results are kept (default: 60)"
    )
    work.add_argument(
        "--offer",
        action="append",
        default=[],
        metavar="NAME",
        help="a restorer to offer although no GPU was found (repeatable)",
    )
    work.add_argument(
        "--allow-url",
        action="store_true",
        help="take https addresses of pictures over HTTP; only public ones are fetched (default: uploads only)",
    )
    add_assessor_options(parser)
    add_restorer_options(parser)
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--limit-pixels", type=int, metavar="N", help="largest picture in pixels; can only be less than the default"
    )
    parser.set_defaults(command=app, profile="server")


def apps_module(name: str) -> Any:
    """A module of `apps`: from the wheel (`restore_bridge.apps`), or from the checkout, where it lies beside us."""
    import restore_bridge

    root = Path(restore_bridge.__file__).resolve().parent
    package = "restore_bridge.apps" if (root / "apps").is_dir() else "apps"
    found = importlib.util.find_spec(package)
    place = root / "apps" if package != "apps" else root.parent / "apps"
    if found is None or found.origin is None or Path(found.origin).resolve().parent != place:
        from zoomiqa.errors import ExtraMissing

        raise ExtraMissing("the app is not part of this installation", None, 'pip install "zoomiqa[app]"')
    return importlib.import_module(f"{package}.{name}")


def app(arguments: argparse.Namespace) -> int:
    from zoomiqa.errors import ExtraMissing

    missing = [name for name in ("fastapi", "uvicorn", "multipart", "gradio") if not _is_here(name, arguments.no_pages)]
    if missing:
        raise ExtraMissing("the app needs what is not installed", ", ".join(missing), 'pip install "zoomiqa[app]"')
    doctor = apps_module("service.offers").Doctor()
    server = apps_module("server")
    if doctor.is_asking and not arguments.no_pages:  # beside its work, as both take seconds
        apps_module("studio.page")
    settings = _settings(arguments, doctor)
    place = server.Place(arguments.host, arguments.port, arguments.trust_proxy)

    def on_ready(url: str) -> None:
        common.complain("restore-bridge", f"serving at {url} (Ctrl-C ends it)")

    server.run(settings, place, with_pages=not arguments.no_pages, on_ready=on_ready)
    return common.EXIT_OK


def _is_here(name: str, no_pages: bool) -> bool:
    return (name == "gradio" and no_pages) or importlib.util.find_spec(
        "python_multipart" if name == "multipart" else name
    ) is not None


def _settings(arguments: argparse.Namespace, doctor: Any) -> Any:
    from zoomiqa.assessors import DEFAULT_ASSESSOR, AssessorSpec
    from zoomiqa.errors import OptionInvalid

    offers, settings = apps_module("service.offers"), apps_module("service.settings")
    limits = common.limits_from(arguments)
    chosen = assessor_from(arguments, limits)
    assessors = {chosen.name: chosen}
    assessors.setdefault(DEFAULT_ASSESSOR, AssessorSpec(limits=limits))
    wanted = (arguments.restorer, *arguments.offer)
    restorers = offers.find_restorers(doctor.report(), wanted)
    first = [offer for offer in restorers if offer.name == arguments.restorer]
    if not first or not first[0].is_ready:
        reason = first[0].reason if first else "see `restore-bridge plugins`"
        raise OptionInvalid("that restorer is not ready here", arguments.restorer, reason)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    has_model = chosen.name != DEFAULT_ASSESSOR or first[0].is_generative
    return settings.ServiceSettings(
        folder=arguments.data or _state_folder(),
        limits=limits,
        assessors=assessors,
        restorers=(*first, *(offer for offer in restorers if offer is not first[0])),
        restorer_options={arguments.restorer: restorer_options(arguments)},
        workers=arguments.workers or (1 if has_model else cores),
        waiting=arguments.waiting,
        waiting_per_client=arguments.waiting_per_client,
        job_seconds=arguments.job_seconds,
        keep_seconds=60 * arguments.keep_minutes,
        allow_url=arguments.allow_url,
    )


def _state_folder() -> Path:
    """Where a user's programs keep what is to survive a restart (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME") or (
        os.environ.get("LOCALAPPDATA") if os.name == "nt" else str(Path.home() / ".local" / "state")
    )
    return Path(base or Path.home()) / "restore-bridge"
