"""A service in a process of its own, for tests that start and kill one: `python -m tests.apps.serve FOLDER PORT`."""

import sys
from pathlib import Path

from apps.server import Place, run
from apps.service.settings import ServiceSettings


def main():
    folder, port, *rest = sys.argv[1:]
    changes = {name: float(value) if "." in value else int(value) for name, value in (item.split("=") for item in rest)}
    run(ServiceSettings(Path(folder), **changes), Place(port=int(port)), with_pages=False)


if __name__ == "__main__":
    main()
