"""Desk, HTTP interface and pages put together in one process, and run. It must not know what any of them does."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zoomiqa.errors import OptionInvalid

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
    """0 takes one that is free."""

    trusted_proxy: str | None = None
    """Address of a reverse proxy whose word on the client's address is taken."""

    def listen(self) -> socket.socket:
        """A socket that listens there; what comes in waits until it is served.

        Raises:
            OptionInvalid: there is no such address or port, or another process listens there.
        """
        if not 0 <= self.port <= 65535:
            raise OptionInvalid("a port must lie in 0..65535", self.port, "7860 is the default")
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family, backlog=2048)
        except OSError as error:
            reason = error.strerror or "unknown reason"
            raise OptionInvalid(
                f"this address cannot be listened at ({reason})",
                f"{self.host}:{self.port}",
                "choose another port or host",
            ) from error

    def url(self, listening: socket.socket) -> str:
        """The address in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{listening.getsockname()[1]}"


def build(desk: Desk, *, with_pages: bool = True) -> Guards:
    """The guarded application over a desk that is open."""
    app = make_api(desk)
    whole: Application = app
    if with_pages:
        from .studio.page import add_pages

        whole = add_pages(app, desk)
    return Guards(whole, upload_bytes=2 * desk.settings.limits.file_bytes + _FORM_BYTES)


def run(
    settings: ServiceSettings, place: Place, *, with_pages: bool = True, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until it is interrupted.

    Args:
        settings: Of the service.
        place: Where it listens; that is settled before anything is begun.
        with_pages: Whether there are pages beside the HTTP interface.
        on_ready: Told the address once everything is ready to work.

    Raises:
        OptionInvalid: it cannot listen there.
        RecordLocked: another process serves the same folder.
        OutputFailed: the folder cannot be used.
        ServiceError: no worker came up.
    """
    import uvicorn

    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(place.listen())
        desk = Desk(settings)
        stack.callback(desk.close)
        stack.enter_context(_own_temporary_folder(settings.folder))
        desk.open()
        config = uvicorn.Config(
            build(desk, with_pages=with_pages),
            log_level="warning",
            server_header=False,
            proxy_headers=place.trusted_proxy is not None,
            forwarded_allow_ips=place.trusted_proxy,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=2**16,
        )
        desk.wait_until_ready()
        if on_ready is not None:
            on_ready(place.url(listening))
        uvicorn.Server(config).run([listening])


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
