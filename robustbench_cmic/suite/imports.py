"""What a user's own code is made of: the module that a suite names, and what this imports of the user's in turn.

Read from source, as signatures are: nothing is imported. Modules count that lie beside the importing file, beside the
suite or elsewhere on the path outside of what is installed; of an installed package only its own modules do.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from robustbench_cmic.suite.signatures import find_module, is_installed, located, parsed

_THIS_PACKAGE = __name__.partition(".")[0]
_Parts = tuple[str, ...]


class _Import(NamedTuple):
    """`from ..base import names` (`level` 2), or `import base`, which has no names."""

    level: int
    base: _Parts
    names: _Parts = ()
    binds_top: bool = False  # `import a.b` makes all of a known, `import a.b as c` only b


class _Module(NamedTuple):
    name: _Parts
    file: Path

    @property
    def package(self) -> _Parts:
        return self.name if self.file.name == "__init__.py" else self.name[:-1]

    @property
    def root(self) -> Path:
        """The folder from which its name counts."""
        folders = self.file.parents
        return folders[min(len(self.package), len(folders) - 1)]


def own_folders() -> tuple[Path, ...]:
    """The folders on the path that hold a user's own modules, in its order; the command line puts the suite's there."""
    folders = dict.fromkeys(Path(entry).absolute() for entry in sys.path)
    return tuple(folder for folder in folders if folder.is_dir() and not is_installed(folder))


def own_modules(name: str, folders: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Names and sources of the modules that `package.module:name` is made of, its own first; none where it is nowhere.

    Args:
        name: as a suite has it.
        folders: where modules of the user's own lie besides the importing file's folder, see `own_folders`. They are
            given, since code may change the path when it runs, and is to be the same code afterwards.
    """
    parts = tuple(name.partition(":")[0].split("."))
    files = [(parts[:end], find_module(".".join(parts[:end]))) for end in range(len(parts), 0, -1)]
    if files[0][1] is None:
        return []
    above = [_Module(prefix, file) for prefix, file in files[1:] if file is not None and _does_something(file)]
    pending = [_Module(parts, files[0][1]), *above]
    found: dict[Path, tuple[str, bytes]] = {}
    while pending:
        module = pending.pop(0)
        if module.file in found:
            continue
        try:
            source = module.file.read_bytes()
        except OSError:
            if not found:
                raise
            continue  # its import will fail and say so
        found[module.file] = ".".join(module.name), source
        pending += _imported(module, source, folders)
    return list(found.values())


def module_files(name: str, folders: Sequence[Path]) -> dict[str, bytes]:
    """Those of `own_modules` as files of a folder that is to be on the path: their paths in it, and sources."""
    modules = dict(own_modules(name, folders))
    packages = {module.rpartition(".")[0] for module in modules}
    return {
        module.replace(".", "/") + ("/__init__.py" if module in packages else ".py"): source
        for module, source in modules.items()
    }


def _imported(module: _Module, source: bytes, folders: Sequence[Path]) -> Iterator[_Module]:
    for each in _imports(source):
        if each.level:
            package = module.package[: len(module.package) - each.level + 1]
            base, places = (*package, *each.base), [module.root]
            if each.level > len(module.package):  # beyond the topmost package: it cannot be imported
                continue
        else:
            base, places = each.base, [*folders, *_around(module, each.base[0])]
        if base[0] == _THIS_PACKAGE:  # its versions are declared by themselves
            continue
        below = [(*base, name) for name in each.names]  # modules of a package, or what the package itself has
        for parts in dict.fromkeys(one if located(places, one) else base for one in below or [base]):
            for end in range(len(parts), 0, -1):
                file = located(places, parts[:end])
                if file is not None and (end == len(parts) or each.binds_top or _does_something(file)):
                    yield _Module(parts[:end], file)


def _around(module: _Module, first: str) -> list[Path]:
    """The folders around a module in which what it imports by this first name may lie."""
    if is_installed(module.root):
        return [module.root] if first == module.name[0] else []
    return [module.root, module.file.parent]  # the latter where code puts its own folder on the path


@functools.cache  # of every module once, however many cells are made with it
def _imports(source: bytes) -> tuple[_Import, ...]:
    """What a module imports, anywhere in its text; nothing where it is no Python."""
    try:
        tree = parsed(source, "module")
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # its import will fail and say so
        return ()
    found: list[_Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [_Import(0, tuple(one.name.split(".")), (), one.asname is None) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = tuple((node.module or "").split(".")) if node.module else ()
            found.append(_Import(node.level, base, tuple(one.name for one in node.names)))
        elif isinstance(node, ast.Call) and (word := _imported_by_call(node)) is not None:
            base = tuple(word.lstrip(".").split("."))
            found.append(_Import(len(word) - len(word.lstrip(".")), base, (), True))
    return tuple(found)


def _imported_by_call(node: ast.Call) -> str | None:
    """The module of `importlib.import_module("module")`; None for all other calls."""
    function = node.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    first = node.args[0] if node.args else None
    word = first.value if isinstance(first, ast.Constant) else None
    if called not in ("import_module", "__import__") or not isinstance(word, str):
        return None
    return word if all(map(str.isidentifier, word.lstrip(".").split("."))) else None


def _does_something(file: Path) -> bool:
    """The `__init__` of a package above a module does more than import and name: then the module depends on it."""
    try:
        body = parsed(file.read_bytes(), file.name).body
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return True
    return not all(map(_is_idle, body))


def _is_idle(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):  # `__all__`, `__version__`
        return all(isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets)
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)
