"""Where a number came from: code, versions, machine. A worker adds what only torch knows."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robustbench_cmic import __version__

PACKAGES = ("robustbench_cmic", "torch", "torchvision", "torchattacks", "timm", "torchmetrics", "numpy", "scikit-learn")
"""Whose versions records hold: numbers may depend on them."""
FURTHER: tuple[str, ...] = (
    "requests", "filelock", "jinja2", "markupsafe", "matplotlib", "pandas", "pillow", "platformdirs", "plotly",
    "pydantic", "pyyaml", "rich", "safetensors", "scipy", "tabulate", "typer", "click", "urllib3", "tensorboard",
)  # fmt: skip
"""On which no number depends; and of libraries that these bring along, those that clash with others' most."""

_PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def collect() -> dict[str, Any]:
    """Hash of the code, commit (None outside a checkout), whether code was changed, versions, platform, processor."""
    commit, dirty = _git_state()
    return {
        "code_sha256": _code_sha256(),
        "commit": commit,
        "dirty": dirty,
        "versions": _versions(PACKAGES),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def installed() -> dict[str, str]:
    """What is installed, by name: versions, the CUDA that torch was built for, and where this package lies."""
    versions = {name: version or "not installed" for name, version in _versions((*PACKAGES, *FURTHER)).items()}
    here = {"cuda": _cuda() or "none", "platform": platform.platform(), "processor": _processor()}
    return versions | here | {"package": str(_PACKAGE)}


def mismatch(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """In what two machines differ that decides numbers, of what `collect` tells; None where they do not."""
    if ours["code_sha256"] != theirs["code_sha256"]:
        return "its code of this package is not the one here"
    for name, version in ours["versions"].items():
        if (other := theirs["versions"].get(name)) != version:
            return f"{name} {other or 'is missing'} there, {version or 'none'} here"
    return None


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


def _versions(packages: Iterable[str]) -> dict[str, str | None]:
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _cuda() -> str | None:
    """The CUDA that torch was built for; read from its source, for importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    found = re.search(r"^cuda\b.*?= *['\"]([^'\"]+)", source, re.MULTILINE)
    return None if found is None else found[1]


def _version(package: str) -> str | None:
    if package == _PACKAGE.name:  # also where its folder is merely on the path
        return __version__
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
