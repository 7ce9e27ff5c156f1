"""A job as an answer shows it. It must not know routes."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse, Response

from ..service.desk import Desk  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.store import Job  # noqa: TID252


def accepted(desk: Desk, job: Job) -> Response:
    """202 with the job and its address."""
    return JSONResponse(shown(desk, job), 202, {"Location": f"/v1/jobs/{job.id}"})


def shown(desk: Desk, job: Job) -> dict[str, Any]:
    """A job without what came out of it and without who asked."""
    base = f"/v1/jobs/{job.id}"
    files = (job.result or {}).get("files", {})
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "attempts": job.attempts,
        "before_it": desk.position(job.id) if job.state == "waiting" else 0,
        "options": dict(job.options),
        "error": None if job.error is None else dict(job.error),
        "links": {
            "self": base,
            "events": f"{base}/events",
            "cancel": f"{base}/cancel",
            "result": f"{base}/result",
            **{f"file:{role}": f"{base}/files/{name}" for role, name in files.items()},
        },
    }
