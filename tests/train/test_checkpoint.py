from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import StoredRunError

torch = pytest.importorskip("torch")

from agentgym.train.checkpoint import Checkpoints  # noqa: E402


def state(number: int, size: int = 64) -> dict[str, Any]:
    return {"number": number, "weights": {"w": torch.full((size,), float(number))}}


@pytest.fixture
def three(tmp_path: Path) -> Checkpoints:
    """Checkpoints 1, 2 and 3 in ``tmp_path/c``."""
    checkpoints = Checkpoints(tmp_path / "c", keep=3)
    for number in (1, 2, 3):
        checkpoints.save(number, state(number))
    return checkpoints


def newest(checkpoints: Checkpoints) -> int | None:
    found, _ = checkpoints.load()
    return None if found is None else found["number"]


def test_what_was_saved_comes_back(three: Checkpoints, tmp_path: Path) -> None:
    found, passed_over = three.load()
    assert found is not None
    assert (found["number"], found["step"], passed_over) == (3, 3, [])
    assert torch.equal(found["weights"]["w"], torch.full((64,), 3.0))
    assert (tmp_path / "c" / "latest").read_text() == "step-000003"


def test_nothing_saved_is_no_error(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", keep=1).load() == (None, [])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(tmp_path, keep=keep)
    for number in range(1, 5):
        checkpoints.save(number, state(number))
    names = [f"step-{number:06d}" for number in range(5 - keep, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", *names]


def _truncated(folder: Path) -> None:
    data = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(data[: len(data) // 2])


def _flipped(folder: Path) -> None:
    data = bytearray((folder / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)


def _rewritten(folder: Path, content: bytes) -> None:
    (folder / "state.pt").write_bytes(content)
    (folder / "sha256").write_text(hashlib.sha256(content).hexdigest())


def _other_schema(folder: Path) -> None:
    torch.save({"schema": 99, **state(3)}, folder / "state.pt")
    _rewritten(folder, (folder / "state.pt").read_bytes())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_truncated, "does not match its hash"),
        (_flipped, "does not match its hash"),
        (lambda folder: (folder / "state.pt").write_bytes(b""), "does not match its hash"),
        (lambda folder: (folder / "state.pt").unlink(), "No such file"),
        (lambda folder: (folder / "sha256").unlink(), "No such file"),
        (lambda folder: (folder / "sha256").write_bytes(b"\xff\xfe"), "decode"),
        (lambda folder: _rewritten(folder, b""), "step-000003"),
        (lambda folder: _rewritten(folder, b"not a checkpoint"), "step-000003"),
        (_other_schema, "it has schema 99, this version reads 1"),
    ],
    ids=["truncated", "flipped", "empty", "gone", "no-hash", "bad-hash", "empty-hashed", "foreign", "schema"],
)
def test_a_damaged_one_is_passed_over_for_the_one_before(
    three: Checkpoints, tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(tmp_path / "c" / "step-000003")
    found, (line,) = three.load()
    assert found is not None
    assert found["number"] == 2
    assert f"passed over the damaged checkpoint '{tmp_path / 'c' / 'step-000003'}'" in line
    assert said in line


def test_all_damaged_leaves_nothing_and_a_line_each(three: Checkpoints, tmp_path: Path) -> None:
    for folder in (tmp_path / "c").glob("step-*"):
        _truncated(folder)
    found, passed_over = three.load()
    assert found is None
    assert len(passed_over) == 3


def test_what_a_kill_left_half_written_is_not_taken_for_one(three: Checkpoints, tmp_path: Path) -> None:
    partial = tmp_path / "c" / ".partial-000004"
    partial.mkdir()
    (partial / "state.pt").write_bytes(b"half")
    assert three.load()[1] == []
    assert newest(three) == 3
    three.save(4, state(4))
    assert newest(three) == 4
    assert not partial.exists()


def test_a_checkpoint_is_saved_over_a_damaged_one_of_its_number(three: Checkpoints, tmp_path: Path) -> None:
    _truncated(tmp_path / "c" / "step-000003")
    three.save(3, state(30))
    assert newest(three) == 30


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from agentgym.errors import StoredRunError
from agentgym.train.checkpoint import Checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = Checkpoints(Path(sys.argv[1]), keep=3)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    checkpoints.save(4, {"number": 4, "weights": {"w": torch.zeros(100_000)}})
except StoredRunError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 20, 5_000, 300_000])
def test_a_full_disk_leaves_the_checkpoints_before_it_whole(three: Checkpoints, tmp_path: Path, room: int) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "c"), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    target = tmp_path / "c" / "step-000004"
    assert f"cannot write the checkpoint '{target}'" in done.stdout
    assert "the checkpoints before it are whole: make room and continue with --resume" in done.stdout
    assert newest(three) == 3
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["latest", *(f"step-{n:06d}" for n in (1, 2, 3))]
    three.save(4, state(4))  # once there is room again
    assert newest(three) == 4


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a file")
    with pytest.raises(StoredRunError, match="cannot write the checkpoint"):
        Checkpoints(tmp_path / "c", keep=1).save(1, state(1))
