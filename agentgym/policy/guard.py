"""Runs a server and ends it, with all its children, when whoever wanted it is gone. Needs the standard library alone.

``python guard.py COMMAND...``: as long as its standard input is open, the command runs in a session of its own. When
the input closes, as it does when the process that held it was killed, or on SIGTERM, the whole session is ended.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

GRACE_S = 10.0
"Between asking the session to end and ending it."


def main(command: list[str]) -> int:
    """Run ``command`` and return its exit code, or 128 and the number of the signal that ended it."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda which, _: asked.append(which))
    while child.poll() is None and not asked:
        readable, _, _ = select.select([0], [], [], 0.2)
        if readable and not os.read(0, 1024):
            break
    _end(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    """End every process of the child's session: politely while the child lives, for certain afterwards."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        os.killpg(child.pid, signal.SIGCONT)  # one that was stopped could not hear it
    until = time.monotonic() + GRACE_S
    while child.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
