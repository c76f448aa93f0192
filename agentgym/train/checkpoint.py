"""Checkpoints: complete or absent, never half there.

A checkpoint is a folder ``step-000012`` with the state and its hash. It is written beside its place and renamed into
it; the file ``latest`` then names it. A damaged one is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from agentgym.errors import StoredRunError

SCHEMA = 1


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they live; made when the first one is saved.
        keep: newest ones left on disk.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder, self._keep = folder, keep

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Save ``state`` as the checkpoint after ``step`` and return its folder.

        Raises:
            StoredRunError: it cannot be written, as on a full disk; the checkpoints before it are whole.
        """
        target = self._folder / f"step-{step:06d}"
        partial = self._folder / f".partial-{step:06d}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            with open(partial / "state.pt", "wb") as file:
                torch.save({"schema": SCHEMA, "step": step, **state}, file)
                file.flush()
                os.fsync(file.fileno())
            (partial / "sha256").write_text(_digest(partial / "state.pt"))
            if target.exists():
                shutil.rmtree(target)
            os.rename(partial, target)
            pointer = self._folder / ".latest"
            pointer.write_text(target.name)
            os.replace(pointer, self._folder / "latest")
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            shutil.rmtree(partial, ignore_errors=True)
            raise StoredRunError(
                f"cannot write the checkpoint '{target}': {error}; the checkpoints before it are whole: "
                "make room and continue with --resume"
            ) from error
        for old in self._steps()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest whole state (None if there is none) and a line about each checkpoint passed over."""
        left: list[str] = []
        for folder in reversed(self._steps()):
            try:
                if (folder / "sha256").read_text() != _digest(folder / "state.pt"):
                    raise ValueError("its content does not match its hash")
                state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
                if state["schema"] != SCHEMA:
                    raise ValueError(f"it has schema {state['schema']}, this version reads {SCHEMA}")
            except (OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
                left.append(f"passed over the damaged checkpoint '{folder}': {error}")
                continue
            return state, left
        return None, left

    def _steps(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


__all__ = ["Checkpoints"]
