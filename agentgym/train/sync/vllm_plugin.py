"""vLLM's half of handing weights over in files. vLLM loads it in each of its processes, by its entry point.

The trainer names a safetensors file that both sides can read, in shared memory or on a shared disk. vLLM's own
layerwise reload then does to the weights what it did when it loaded the model. vLLM is imported where it is used: what
is around it runs in processes that have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentgym.policy.token_protocol import BACKEND


def register() -> None:
    """Make the backend known to vLLM. Called by vLLM, perhaps more than once."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, engine_class())


def engine_class() -> type:
    """Return the transfer engine, a subclass of vLLM's."""
    import torch
    from vllm.distributed.weight_transfer.base import (
        WeightTransferEngine,
        WeightTransferInitInfo,
        WeightTransferUpdateInfo,
    )
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    @dataclass
    class InitInfo(WeightTransferInitInfo):  # type: ignore[misc]
        root: str
        "Folder that files are read from, and no other."
        shape: dict[str, Any] = field(default_factory=dict)
        "The model the trainer has."

    @dataclass
    class UpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
        name: str
        "File in the folder."
        version: str

    class FileEngine(WeightTransferEngine):  # type: ignore[misc]
        """Reads weights from files in one folder."""

        init_info_cls = InitInfo
        update_info_cls = UpdateInfo

        def init_transfer_engine(self, init_info: InitInfo) -> None:
            self._root = Path(init_info.root)
            complain(differences(init_info.shape, self.model_config.hf_config))

        def start_weight_update(self) -> None:
            initialize_layerwise_reload(self.model)

        def update_weights(self, update_info: dict[str, Any]) -> None:
            self.receive_weights(self.parse_update_info(update_info))
            if self.device.type != "cpu":  # there is no accelerator to wait for
                torch.accelerator.synchronize()

        def receive_weights(self, update_info: UpdateInfo) -> None:
            weights = read(self._root / Path(update_info.name).name, update_info.version)
            self.model.load_weights((name, tensor.to(self.device)) for name, tensor in weights.items())

        def finish_weight_update(self) -> None:
            finalize_layerwise_reload(self.model, self.model_config)

        def shutdown(self) -> None:
            """Has nothing to let go of."""

    return FileEngine


def differences(wanted: Mapping[str, Any], config: Any) -> list[str]:
    """Return how the served model differs from the ``wanted`` shape, both as transformers' configurations say it."""
    text = config.get_text_config()
    served = {name: getattr(text, name, None) for name in wanted}
    return [f"{name} is {served[name]}, not {value}" for name, value in wanted.items() if served[name] != value]


def complain(found: list[str]) -> None:
    """Raise ValueError if anything was ``found``."""
    if found:
        raise ValueError("this server's model is not the trainer's: " + "; ".join(found))


def read(path: Path, version: str) -> dict[str, Any]:
    """Return the weights of a file.

    Raises:
        ValueError: it holds another version than the trainer said.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        held = (file.metadata() or {}).get("version")
        if held != version:
            raise ValueError(f"'{path}' holds weights of version {held}, not {version}")
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)


__all__ = ["complain", "differences", "engine_class", "read", "register"]
