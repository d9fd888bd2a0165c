"""What is known of a training before it begins: its options and the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from custom_llm.config.training import TrainConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.training.optim.schedule import FLOOR

LONGER = 4  # times, which is worth it after a training that was too short


@dataclass(frozen=True)
class About:
    """For the page and for trackers."""

    model_path: str  # where the weights are written
    corpus: str  # what is learnt from
    n_parameters: int
    dropout: float  # of the model
    command: str  # which trains it
    longer: str  # flags of a training that is longer by LONGER
    tables: Mapping[str, Mapping[str, object]]  # title → name → value


def describe(
    model_path: str, corpus: str, model: GPTLanguageModel, config: TrainConfig, device: torch.device, n_processes: int,
    command: str,
) -> About:  # fmt: skip
    """All options, with what was chosen where nothing was said, and the machine; `command` trains this model."""
    block_size = model.config.block_size
    chosen = {
        "min_lr": FLOOR * config.learning_rate if config.min_lr is None else config.min_lr,
        "total_batch_size": config.accumulation(block_size, n_processes) * config.batch_size * block_size,
        "stride": config.stride or block_size,
        "threads": torch.get_num_threads(),
    }
    machine = {"processor": _processor(), "cores": os.cpu_count()}
    if device.type != "cpu":
        machine["GPU"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    machine |= {"system": platform.platform(), "Python": platform.python_version(), "PyTorch": torch.__version__}
    tables = {"Training": asdict(config) | chosen, "Model": model.config.to_dict(), "Machine": machine}
    end = next((name for name in ("minutes", "max_iters") if getattr(config, name) is not None), "max_epochs")
    longer = f"--{end} {LONGER * getattr(config, end):{'g' if end == 'minutes' else ''}}"
    return About(model_path, corpus, model.n_parameters(), model.config.dropout, command, longer, tables)


def _processor() -> str:
    """As its maker calls it, where the system says so."""
    try:
        if platform.system() == "Darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()
