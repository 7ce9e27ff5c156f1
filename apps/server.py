"""Desk, HTTP interface and pages put together in one process, and run. It must not know what any of them does."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .service.desk import Desk
from .service.settings import ServiceSettings
from .web.api import make_api
from .web.guards import Application, Guards

LOG = logging.getLogger("restore_bridge.app")

_FORM_BYTES = 2**20
"""Room for the other parts of a form."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the service listens."""

    host: str = "127.0.0.1"
    port: int = 7860
    trusted_proxy: str | None = None
    """Address of a reverse proxy whose word on the client's address is taken."""


def build(desk: Desk, *, with_pages: bool = True) -> Guards:
    """The guarded application over a desk that is open."""
    app = make_api(desk)
    whole: Application = app
    if with_pages:
        from .studio.page import add_pages

        whole = add_pages(app, desk)
    return Guards(whole, upload_bytes=2 * desk.settings.limits.file_bytes + _FORM_BYTES)


def run(settings: ServiceSettings, place: Place, *, with_pages: bool = True) -> None:
    """Serve until it is interrupted.

    Raises:
        RecordLocked: another process serves the same folder.
        OutputFailed: the folder cannot be used.
        ServiceError: no worker came up.
    """
    import uvicorn

    desk = Desk(settings)
    with contextlib.ExitStack() as stack:
        stack.callback(desk.close)
        stack.enter_context(_own_temporary_folder(settings.folder))
        desk.open()
        config = uvicorn.Config(
            build(desk, with_pages=with_pages),
            host=place.host,
            port=place.port,
            log_level="warning",
            server_header=False,
            proxy_headers=place.trusted_proxy is not None,
            forwarded_allow_ips=place.trusted_proxy,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=2**16,
        )
        desk.wait_until_ready()
        uvicorn.Server(config).run()


@contextlib.contextmanager
def _own_temporary_folder(folder: Path) -> Iterator[None]:
    """Uploads under way and the pages' own files lie in the service's folder, private, and are gone afterwards; also
    those of a service that was killed.
    """
    for left in folder.glob("pages-*"):
        shutil.rmtree(left, ignore_errors=True)
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="pages-", dir=folder) as place:
        tempfile.tempdir = place
        os.environ["GRADIO_TEMP_DIR"] = str(Path(place) / "gradio")
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            yield
        finally:
            tempfile.tempdir = before
