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

LONGER = 4  # times, which is worth the while after a training that was too short


@dataclass(frozen=True)
class About:
    """For the page and for trackers.

    Attributes:
        model_path: where the weights are written.
        corpus: what is learnt from.
        dropout: of the model.
        command: which trains it.
        longer: flags of a training that is longer by LONGER.
        tables: title → name → value.
    """

    model_path: str
    corpus: str
    n_parameters: int
    dropout: float
    command: str
    longer: str
    tables: Mapping[str, Mapping[str, object]]


def describe(
    model_path: str, corpus: str, model: GPTLanguageModel, config: TrainConfig, device: torch.device, n_processes: int,
    command: str,
) -> About:  # fmt: skip
    """All options, with what was chosen where nothing was said, and the machine.

    Args:
        command: which trains this model.
    """
    block_size = model.config.block_size
    chosen = {
        "min_lr": FLOOR * config.learning_rate if config.min_lr is None else config.min_lr,
        "total_batch_size": config.accumulation(block_size, n_processes) * config.batch_size * block_size,
        "stride": config.stride or block_size,
        "threads": torch.get_num_threads(),
    }
    tables = {
        "Training": asdict(config) | chosen,
        "Model": model.config.to_dict(),
        "Machine": _describe_machine(device),
    }
    return About(
        model_path, corpus, model.n_parameters(), model.config.dropout, command, _longer(config), tables,
    )  # fmt: skip


def _longer(config: TrainConfig) -> str:
    if config.minutes is not None:
        return f"--minutes {LONGER * config.minutes:g}"
    if config.max_iters is not None:
        return f"--max_iters {LONGER * config.max_iters}"
    return f"--max_epochs {LONGER * config.max_epochs}"


def _describe_machine(device: torch.device) -> dict[str, object]:
    about = {"processor": _processor(), "cores": os.cpu_count()}
    if device.type == "cuda":
        about["GPU"] = torch.cuda.get_device_name(device)
    elif device.type != "cpu":
        about["GPU"] = device.type
    return about | {
        "system": platform.platform(), "Python": platform.python_version(), "PyTorch": torch.__version__,
    }  # fmt: skip


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
