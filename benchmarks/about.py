"""What every benchmark says about the machine it ran on."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from pathlib import Path

import torch


def machine(device: str, *packages: str) -> str:
    """A line: date, processor or GPU, threads, versions."""
    if device.startswith("cuda"):
        where = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
        where = f"{model}, {torch.get_num_threads()} threads"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", *packages)]
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{where}; Python {platform.python_version()}, {', '.join(versions)}; {today}"


def table(rows: list[list[str]], headers: list[str]) -> str:
    """A Markdown table."""
    from tabulate import tabulate

    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)
