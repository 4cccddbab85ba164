"""What functions and classes of other people take, read from their source. Nobody's module is imported or run.

What a source does not tell (decorated, built at run time, inherited from another file) passes unchecked.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import operator
import re
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from robustbench_cmic.suite.fields import CUSTOM_NAME
from robustbench_cmic.suite.messages import UserError, suggestion

UNREAD = object()
"""A default that is there, and that the source does not give as a number, a word or a truth value."""
_TRANSPARENT = ("no_grad", "enable_grad", "inference_mode", "cache", "lru_cache", "final", "override")
"""Decorators that leave parameters as they are."""
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

_INSTALLED = {"site-packages", "dist-packages"}
_THIS_PACKAGE = Path(__file__).parents[1]

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Bindings = Mapping[str, list[ast.AST]]


class CustomCodeError(UserError):
    """Code that is not there or cannot be called; the message says why."""


def find_module(name: str) -> Path | None:
    """The Python file of `package.module:name`; None where there is none. No package above it is imported, either."""
    first, *rest = name.partition(":")[0].split(".")
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # a module that was made at run time
        return None
    if spec is None:
        return None
    file = Path(spec.origin) if spec.origin is not None and spec.origin.endswith(".py") else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    return located(folders, rest) if rest else file


def located(folders: Sequence[Path], parts: Sequence[str]) -> Path | None:
    """The file of a module or package in these folders, by the parts of its name; None where there is none."""
    file, folders = None, list(folders)
    for part in parts:  # the first folder that has it counts; a package before a module
        files = [each for folder in folders for each in (folder / part / "__init__.py", folder / f"{part}.py")]
        file = next((each for each in files if each.is_file()), None)
        if file is None:
            folders = [folder / part for folder in folders if (folder / part).is_dir()]
        else:
            folders = [file.parent] if file.name == "__init__.py" else []
    return file


def installed_folder(package: str) -> Path:
    """Where a dependency of this package lies; only a broken installation raises a `ModuleNotFoundError`."""
    file = find_module(package)
    if file is None:
        raise ModuleNotFoundError(f"{package} is not installed: pip install {package}")
    return file.parent


def custom_signature(name: str, form: str = "package.module:name") -> inspect.Signature | None:
    """The parameters of a user's own function or class; None where its source does not tell them.

    Raises:
        CustomCodeError: the name is not of this form, or what it names is not there, or cannot be called.
    """
    if not re.fullmatch(CUSTOM_NAME, name):
        raise CustomCodeError(f"should be written {form}, not '{name}'")
    module, _, word = name.partition(":")
    file = find_module(name)
    if file is None:
        where = "put it beside the suite, install it, or run from its folder"
        if module.endswith(".py"):
            where = f"write {module.removesuffix('.py')}:{word}"
        raise CustomCodeError(f"there is no module {module} here: {where}")
    try:
        tree = parsed(file.read_bytes(), file.name)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:  # as an import would fail
        raise CustomCodeError(f"the module {module} cannot be imported: {one_line(error)}") from error
    bindings = _bindings(tree)
    bound = bindings.get(word, [])
    if not bound and not _open_ended(tree, word):
        public = {key: nodes[0] for key, nodes in bindings.items() if not key.startswith("_")}
        known = sorted(key for key, node in public.items() if isinstance(node, _Function | ast.ClassDef))
        raise CustomCodeError(f"{file} defines no {word}; {suggestion(word, known, listing='it has')}")
    if len(bound) == 1 and isinstance(bound[0], ast.Assign):
        value = _constant(bound[0].value, bindings)
        if value is not UNREAD:
            raise CustomCodeError(f"{name} should be a function or a class, not of type {type(value).__name__}")
    return read_signature(tree, word)


def custom_attribute(name: str, attribute: str) -> Any:
    """What the module of a user's own code sets as an attribute of it, by a line `name.attribute = value`.

    None where no line does, or the module cannot be read; `UNREAD` where the value is none that its source tells.
    """
    file, word = find_module(name), name.partition(":")[2]
    try:
        tree = ast.Module([], []) if file is None else parsed(file.read_bytes(), file.name)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and (_name(target.value), target.attr) == (word, attribute)
    ]
    return _constant(values[-1], _bindings(tree)) if values else None


def read_signature(tree: ast.Module, name: str) -> inspect.Signature | None:
    """The parameters with which a function or class of a module is called; None where its source does not tell them."""
    bindings = _bindings(tree)
    nodes = bindings.get(name, [])
    return _signature(nodes[0], bindings) if len(nodes) == 1 else None


@lru_cache(maxsize=64)  # a suite asks for the same module at every eps
def parsed(source: bytes, file: str) -> ast.Module:
    """The tree of a module; `file` is for error messages.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it is no Python.
    """
    with warnings.catch_warnings():  # of somebody else's escape sequences
        warnings.simplefilter("ignore")
        return ast.parse(source, file)


def one_line(error: BaseException) -> str:
    """An error in words, on one line, and where a user's own code raised it, or called what did.

    `ValueError: no such thing (my_model.py, line 3)`; without a place where nobody's own code had a part in it.
    """
    words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    calls = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [f" ({file.name}, line {line})" for file, line in calls if file.is_file() and _is_own(file)]
    return words + (own[-1] if own else "")


def _is_own(file: Path) -> bool:
    return not is_installed(file.parent) and not file.is_relative_to(_THIS_PACKAGE)


@cache
def is_installed(folder: Path) -> bool:
    """It is Python's, or packages are installed into it."""
    standard = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    below = any(folder.is_relative_to(place) for place in standard)
    return below or not _INSTALLED.isdisjoint(folder.parts) or any(folder.glob("*.dist-info"))


def _bindings(tree: ast.Module) -> _Bindings:
    """Every name that a module's text binds -> the nodes that do; what functions and classes hold inside is no name."""
    bindings: dict[str, list[ast.AST]] = {}
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        names: list[str] = []
        if isinstance(node, _Function | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names = [node.id]
        else:
            pending += ast.iter_child_nodes(node)
        for name in names:
            bindings.setdefault(name, []).append(node)
    return bindings


def _open_ended(tree: ast.Module, name: str) -> bool:
    """A module may have names that its text does not bind."""
    return any(
        (isinstance(node, ast.ImportFrom) and node.names[0].name == "*")
        or (isinstance(node, ast.Name) and node.id in ("exec", "globals", "locals", "setattr", "vars"))
        or (isinstance(node, ast.Attribute) and node.attr in ("modules", "__dict__"))
        or (isinstance(node, ast.Global) and name in node.names)
        or (isinstance(node, ast.FunctionDef) and node.name == "__getattr__")
        for node in ast.walk(tree)
    )


def _signature(node: ast.AST, bindings: _Bindings) -> inspect.Signature | None:
    if not isinstance(node, _Function | ast.ClassDef) or not all(map(_transparent, node.decorator_list)):
        return None
    if isinstance(node, _Function):
        return inspect.Signature(_parameters(node.args, bindings))
    inside = _bindings(ast.Module(node.body, []))
    if node.keywords or "__new__" in inside:  # a metaclass may call it in any way
        return None
    if "__init__" in inside:
        method, *others = inside["__init__"]
        if others or not isinstance(method, _Function) or method.decorator_list:
            return None
        return inspect.Signature(_parameters(method.args, bindings)[1:])
    bases = [base.id if isinstance(base, ast.Name) else "" for base in node.bases if _name(base) != "object"]
    if not bases:
        return inspect.Signature()
    parents = bindings.get(bases[0], [])
    if len(bases) != 1 or len(parents) != 1 or not isinstance(parents[0], ast.ClassDef):
        return None
    return _signature(parents[0], {key: nodes for key, nodes in bindings.items() if key != node.name})


def _transparent(decorator: ast.expr) -> bool:
    return _name(decorator.func if isinstance(decorator, ast.Call) else decorator) in _TRANSPARENT


def _name(node: ast.expr) -> str:
    """`name` of `name` and of `module.name`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _parameters(arguments: ast.arguments, bindings: _Bindings) -> list[inspect.Parameter]:
    by_place = [*arguments.posonlyargs, *arguments.args]
    defaults = dict(zip(by_place[len(by_place) - len(arguments.defaults) :], arguments.defaults, strict=True))
    given = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    defaults |= {argument: default for argument, default in given if default is not None}
    kinds: list[tuple[Any, Sequence[ast.arg | None]]] = [
        (inspect.Parameter.POSITIONAL_ONLY, arguments.posonlyargs),
        (inspect.Parameter.POSITIONAL_OR_KEYWORD, arguments.args),
        (inspect.Parameter.VAR_POSITIONAL, [arguments.vararg]),
        (inspect.Parameter.KEYWORD_ONLY, arguments.kwonlyargs),
        (inspect.Parameter.VAR_KEYWORD, [arguments.kwarg]),
    ]
    values = {argument: _constant(default, bindings) for argument, default in defaults.items()}
    return [
        inspect.Parameter(argument.arg, kind, default=values.get(argument, inspect.Parameter.empty))
        for kind, group in kinds
        for argument in group
        if argument is not None
    ]


def _constant(node: ast.expr, bindings: _Bindings) -> Any:
    """The value of a literal, of `8 / 255`, or of a module's constant; `UNREAD` for all else."""
    if isinstance(node, ast.BinOp):
        left, right = _constant(node.left, bindings), _constant(node.right, bindings)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers or type(node.op) not in _ARITHMETIC or (isinstance(node.op, ast.Div) and right == 0):
            return UNREAD
        return _ARITHMETIC[type(node.op)](left, right)
    if isinstance(node, ast.Name):
        bound = bindings.get(node.id, [])
        if len(bound) != 1 or not isinstance(bound[0], ast.Assign):
            return UNREAD
        return _constant(bound[0].value, {key: nodes for key, nodes in bindings.items() if key != node.id})
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return UNREAD
