"""What a judge has said, kept through restarts, kills and other processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentgym.errors import StoredRunError
from agentgym.judging.cache import VerdictCache

WRITER = """
import sys
from pathlib import Path
from agentgym.judging.cache import VerdictCache
cache = VerdictCache(Path(sys.argv[1]))
for n in range(50):
    cache.put(f"shared {n}", sys.argv[2])
    cache.put(f"{sys.argv[2]} {n}", "own")
print("\\n".join(cache.get(f"shared {n}") for n in range(50)))
cache.close()
"""
KILLED = """
import sys
from pathlib import Path
from agentgym.judging.cache import VerdictCache
cache = VerdictCache(Path(sys.argv[1]))
for n in range(10**9):
    cache.put(str(n), "x" * 1000)
    print(n, flush=True)
"""


def test_it_keeps_the_first(tmp_path: Path):
    path = tmp_path / "verdicts"
    cache = VerdictCache(path)
    assert cache.get("a") is None
    assert (cache.put("a", "yes"), cache.put("a", "no"), cache.get("a")) == ("yes", "yes", "yes")
    cache.close()
    cache.close()
    again = VerdictCache(path)
    assert (again.get("a"), again.get("b")) == ("yes", None)
    again.close()


def test_processes_share_it_and_hear_the_same(tmp_path: Path):
    path = tmp_path / "verdicts"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)]
    heard = [writer.communicate()[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert heard[0] == heard[1] == heard[2]
    cache = VerdictCache(path)
    assert all(cache.get(f"{who} {n}") == "own" for who in range(3) for n in range(50))
    cache.close()


def test_what_was_put_outlives_a_kill(tmp_path: Path):
    path = tmp_path / "verdicts"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if line == "20\n":
                break
        writer.send_signal(signal.SIGKILL)
    cache = VerdictCache(path)
    assert [cache.get(str(n)) for n in range(21)] == ["x" * 1000] * 21
    assert cache.put("new", "y") == "y"
    cache.close()


def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path):
    import sqlite3

    path = tmp_path / "notes.txt"
    path.write_text("this is no database at all, but long enough to look at\n" * 30)
    with pytest.raises(StoredRunError, match=r"notes\.txt.*not a database"):
        VerdictCache(path)
    assert path.read_text().startswith("this is no database")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE notes (text)")
    other.commit()
    other.close()
    with pytest.raises(StoredRunError, match="is no verdict cache"):
        VerdictCache(tmp_path / "other")
    with pytest.raises(StoredRunError, match="unable to open"):
        VerdictCache(tmp_path / "nowhere" / "cache")


def test_a_cache_that_is_closed_says_so(tmp_path: Path):
    cache = VerdictCache(tmp_path / "verdicts")
    cache.close()
    for use in (lambda: cache.get("a"), lambda: cache.put("a", "b")):
        with pytest.raises(StoredRunError, match="closed database"):
            use()
