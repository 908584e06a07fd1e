"""Runs ``python -m infra.app``; then once more into the folder given, with all options on.

Opening a connection, or starting any program but Node, raises.
"""

import runpy
import sys
from pathlib import Path


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise PermissionError(f"synth must work offline, but it called {event} {arguments!r}")
    if event == "subprocess.Popen":
        program = Path(str(arguments[0]))
        if program.name != "node":
            raise PermissionError(f"synth must work alone, but it ran {program}")


if __name__ == "__main__":
    sys.addaudithook(_refuse)
    runpy.run_module("infra.app", run_name="__main__")

    from infra.app import build
    from infra.settings import StackSettings

    build(StackSettings(gpu=True, alarms="ops@example.org"), outdir=sys.argv[1]).synth()
