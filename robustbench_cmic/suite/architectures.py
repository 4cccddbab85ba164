"""Which architectures a suite may name: this package's, timm's, a user's own.

To find out nothing is imported but, for a module of a user's own that lies in a package, that package.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

from robustbench_cmic.models import ARCHITECTURES
from robustbench_cmic.suite.own_code import module_file, module_problem
from robustbench_cmic.suite.problems import suggestion

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
    problem = module_problem(name, "package.module:function")
    file = None if problem is not None else module_file(name)
    if file is None:
        return problem
    function = name.partition(":")[2]
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
