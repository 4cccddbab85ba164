"""Where a number came from: code, versions, machine. A worker adds what only torch knows."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("robustbench_cmic", "torch", "torchvision", "torchattacks", "timm", "torchmetrics", "numpy", "scikit-learn")

_PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def collect() -> dict[str, Any]:
    """Hash of the code, commit (None outside a checkout), whether code was changed, versions, platform, processor."""
    commit, dirty = _git_state()
    return {
        "code_sha256": _code_sha256(),
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def processor_text(facts: Mapping[str, Any]) -> str:
    """The processor and its instructions, of what a record says of its origin; empty where neither is known."""
    return ", ".join(str(facts[key]) for key in ("processor", "instructions") if facts.get(key))


def _code_sha256() -> str:
    """SHA-256 over paths and contents of the package's Python files, wherever it is installed."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(_PACKAGE).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout this code runs from; results do not make it dirty, code does."""
    root = _PACKAGE.parent
    if not (root / ".git").exists():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", _PACKAGE.name, "suites", "pyproject.toml")
    return commit, None if changes is None else bool(changes)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    """Name, family and model: cloud machines call processors of several generations `AMD EPYC`."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        first = ""
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    numbers = [f"{word} {facts[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in facts]
    return f"{facts['model name']} ({', '.join(numbers)})" if numbers else facts["model name"]
