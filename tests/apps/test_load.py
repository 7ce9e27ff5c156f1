"""Many clients at once, in short; the whole of it is `benchmarks/service_load.py`."""

import asyncio

from benchmarks import service_load as bench
from tests.apps.conftest import start_bare


def test_many_clients_at_once(tmp_path):
    service = start_bare(tmp_path / "data", workers=2, waiting=10, waiting_per_client=4)
    try:
        tally = asyncio.run(bench.load(service.url, service.process.pid, clients=20, seconds=5))
    finally:
        service.end()
    assert tally.right > 0
    assert tally.wrong == tally.lost == tally.refused_without_time == 0, tally.errors
    assert tally.refused > 0, "more came than may wait"
    assert max(tally.memory_mib) < 2500
