"""Which architectures a suite may name: this package's, timm's, a user's own.

To find out nothing is imported but, for a module of a user's own that lies in a package, that package.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
from pathlib import Path

from robustbench_cmic.models import ARCHITECTURES
from robustbench_cmic.suite.problems import suggestion

_OWN = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)


@functools.cache
def timm_models() -> dict[str, str]:
    """Name of every model of timm -> the module that defines it; read from the source: importing takes seconds."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:  # a dependency of this package: only a broken installation lacks it
        raise ModuleNotFoundError("timm is not installed: pip install timm")
    found = {}
    for file in sorted((Path(spec.origin).parent / "models").glob("*.py")):
        found.update(dict.fromkeys(_REGISTERED.findall(file.read_text(encoding="utf-8")), file.stem))
    return found


def architecture_problem(name: str, small_stem: bool, pretrained: bool) -> str | None:
    """What is wrong with an architecture for this stem and these weights, as a sentence; None where it is right."""
    base, _, tag = name.partition(".")
    if ":" in name:
        problem = _own_problem(name)
    elif name in ARCHITECTURES or (base in timm_models() and (not tag or pretrained)):
        problem = None
    elif base in timm_models():
        problem = f"'.{tag}' names weights of timm's {base}: leave it out, or set `pretrained: true`"
    else:
        near = suggestion(name, [*ARCHITECTURES, *timm_models()])
        if "did you mean" not in near:
            near = f"known here: {', '.join(ARCHITECTURES)}, every model of timm, and package.module:function"
        problem = f"unknown architecture '{name}'; {near}"
    if problem is None and small_stem and timm_models().get(base) != "resnet":
        problem = f"`stem: small` is for timm's ResNets (resnet18, say), not for {name}"
    if problem is None and small_stem and pretrained:
        problem = "`stem: small` would replace the first layer of the pretrained weights: choose one of the two"
    if problem is None and pretrained and base not in timm_models():
        problem = f"`pretrained` is for models of timm, not for {name}"
    return problem


def _own_problem(name: str) -> str | None:
    if not _OWN.fullmatch(name):
        return f"should be written package.module:function, not '{name}'"
    module, _, function = name.partition(":")
    try:
        file = _module_file(module)
    except (Exception, SystemExit) as error:  # whatever the package's own __init__ does
        return f"the package of {module} cannot be imported: {type(error).__name__}: {error}"
    if file is None:
        return f"there is no module {module} here: install it, or run from the folder that holds it"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        return f"{file} cannot be read as Python: {error}"
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    if function in defined or "*" in defined:
        return None
    return f"{file} defines no {function}; {suggestion(function, sorted(defined), listing='it has')}"


def _module_file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def own_code_sha256(name: str) -> str | None:
    """SHA-256 (hex) of the file of a user's own architecture; None for the others."""
    file = _module_file(name.partition(":")[0]) if ":" in name else None
    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
