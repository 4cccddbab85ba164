"""What classes and functions of other people take, and where the modules of a user's own lie."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_cmic.suite.fields import CUSTOM_NAME
from robustbench_cmic.suite.messages import UserError, suggestion

REQUIRED = object()


@dataclass(frozen=True)
class Signature:
    """The parameters of one attack class: name -> default, or `REQUIRED`."""

    name: str
    defaults: dict[str, Any]


def _defaults(arguments: ast.arguments) -> dict[str, Any]:
    names = [argument.arg for argument in arguments.args][1:]
    values = [_constant(node) for node in arguments.defaults]
    defaults = dict(zip(names, [REQUIRED] * (len(names) - len(values)) + values, strict=True))
    for argument, node in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        defaults[argument.arg] = REQUIRED if node is None else _constant(node)
    return defaults


def _constant(node: ast.expr) -> Any:
    """The value of a default such as `8 / 255`; None for what is no number, word or truth value."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        left, right = _constant(node.left), _constant(node.right)
        return left / right if isinstance(left, int | float) and isinstance(right, int | float) and right else None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


class CustomCodeError(UserError):
    """Code that is not there or cannot be called; the message says why."""


def module_problem(name: str, form: str = "package.module:name") -> str | None:
    """What is wrong with the part before the colon, as a sentence; None where it names a Python file."""
    if not re.fullmatch(CUSTOM_NAME, name):
        return f"should be written {form}, not '{name}'"
    module = name.partition(":")[0]
    try:
        file = module_file(name)
    except (Exception, SystemExit) as error:  # whatever the package's own __init__ does
        return f"the package of {module} cannot be imported: {one_line(error)}"
    if file is None:
        return f"there is no module {module} here: put it beside the suite, install it, or run from its folder"
    return None


def module_file(name: str) -> Path | None:
    """The Python file of `package.module:name`; None where there is none."""
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except ModuleNotFoundError:
        return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def custom_signature(name: str) -> inspect.Signature | None:
    """The parameters of a user's own function or class; None where Python does not know them.

    Raises:
        OwnCodeError: it cannot be imported or called.
    """
    problem = module_problem(name)
    if problem is not None:
        raise CustomCodeError(problem)
    path, _, word = name.partition(":")
    try:
        module = importlib.import_module(path)
    except (Exception, SystemExit) as error:  # whatever the user's own code does
        raise CustomCodeError(f"the module {path} cannot be imported: {one_line(error)}") from error
    if not hasattr(module, word):
        known = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise CustomCodeError(f"{module.__file__} defines no {word}; {suggestion(word, known, listing='it has')}")
    found = getattr(module, word)
    if not callable(found):
        raise CustomCodeError(f"{name} should be a function or a class, not of type {type(found).__name__}")
    try:
        return inspect.signature(found)
    except ValueError:  # of functions written in C
        return None


def one_line(error: BaseException) -> str:
    """An error in words, on one line: `ValueError: no such thing`."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


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
