"""What is read of a signature from source equals what Python says of the imported thing, or is nothing."""

from __future__ import annotations

import inspect
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.suite.custom import ATTACK, custom_parameters, custom_problems
from robustbench_cmic.suite.signatures import (
    UNREAD,
    CustomCodeError,
    custom_signature,
    find_module,
    one_line,
    parsed,
    read_signature,
)

KNOWN = """\
import functools, torch
STEPS, RATE = 3, 0.5
COUNT = 2 * 10
EIGHT: float = 8 / 255

def plain(model, images, labels, *, eps, norm, steps=COUNT, alpha=1 / 4, word="a", flags=(1, -2)): ...
def only(a, b=1, /, c=-1.5, *rest, d, e=None, **more): ...
@torch.no_grad()
def quiet(model, steps=COUNT + 1): ...
async def later(a): ...
class Base:
    def __init__(self, classes, gamma=1 / 2): ...
class Inherits(Base):
    def forward(self, x): ...
class Bare: ...
class Own(Base):
    LIMIT = 3
    def __init__(self, classes, *, beta): ...
if True:
    def inside(x, y=2): ...
"""
UNKNOWN = """\
import functools
from abc import ABC
from elsewhere import imported, Parent

def wrapped(f): return lambda *args: f
@wrapped
def decorated(a): ...
def twice(a): ...
def twice(b): ...
partial = functools.partial(twice, 1)
class Child(Parent): ...
class Meta(metaclass=type): ...
class New:
    def __new__(cls, a): ...
class Method:
    @wrapped
    def __init__(self, a): ...
class Loop(Loop): ...
"""


@pytest.mark.parametrize("name", ["plain", "only", "quiet", "later", "Inherits", "Bare", "Own", "inside"])
def test_what_is_read_is_what_python_says(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(KNOWN, namespace)
    read = read_signature(parsed(KNOWN.encode(), "known.py"), name)
    expected = inspect.signature(namespace[name])
    assert read == expected


@pytest.mark.parametrize(
    "name", ["imported", "decorated", "twice", "partial", "Child", "Meta", "New", "Method", "Loop", "absent"]
)
def test_what_source_does_not_tell_is_nothing(name: str) -> None:
    assert read_signature(parsed(UNKNOWN.encode(), "unknown.py"), name) is None


def test_defaults_that_are_not_plain_are_left_to_the_function() -> None:
    text = b"RATE = f()\nA = B\nB = A\ndef f(a=RATE, b=[1], c=g(), d=A, e=1 / 0, h=2 ** 3, i='x' * 3): ..."
    read = read_signature(parsed(text, "x.py"), "f")
    assert read is not None
    values = {key: parameter.default for key, parameter in read.parameters.items()}
    assert values == {"a": UNREAD, "b": [1], "c": UNREAD, "d": UNREAD, "e": UNREAD, "h": UNREAD, "i": UNREAD}


CODE = """\
N = 3
L = [1, 2]
def known(model, images, labels, *, eps, norm, steps=N): ...
decorated = staticmethod(known)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages with and without `__init__`, in two folders on the path."""
    for place in ("first/outer/inner", "first/loose/deep", "second/outer"):
        (tmp_path / place).mkdir(parents=True)
    for file in (
        "outer/__init__.py",
        "outer/inner/__init__.py",
        "outer/module.py",
        "loose/deep/module.py",
        "single.py",
    ):
        (tmp_path / "first" / file).write_text(CODE)
    (tmp_path / "second" / "outer" / "hidden.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path / "second")
    monkeypatch.syspath_prepend(tmp_path / "first")
    return tmp_path / "first"


def test_modules_are_found_without_their_packages(folder: Path) -> None:
    expected = {
        "single": "single.py", "outer": "outer/__init__.py", "outer.module": "outer/module.py",
        "outer.inner": "outer/inner/__init__.py", "loose.deep.module": "loose/deep/module.py",
        "outer.hidden": None, "outer.module.more": None, "loose": None, "nobody": None, "sys": None, "__main__.x": None,
    }  # fmt: skip
    for name, file in expected.items():
        assert find_module(f"{name}:x") == (None if file is None else folder / file), name


def test_what_is_not_there_is_told_and_what_may_be_there_passes(folder: Path) -> None:
    assert list(custom_problems("single:known", ATTACK, {"step": 1})) == [
        ("step", "single:known has no such parameter; did you mean 'steps'?")
    ]
    assert list(custom_problems("single:decorated", ATTACK, {"anything": 1})) == []
    assert custom_parameters("single:known", ATTACK, {}, 0.1) == {"steps": 3}
    assert custom_parameters("single:decorated", ATTACK, {"a": "eps/2"}, 0.1) == {"a": 0.05}
    for name, kind in (("N", "int"), ("L", "list")):
        with pytest.raises(CustomCodeError, match=f"should be a function or a class, not of type {kind}"):
            custom_signature(f"single:{name}")
    with pytest.raises(CustomCodeError, match="defines no knwon; did you mean 'known'"):
        custom_signature("single:knwon")
    for line in (
        "from other import *",
        "globals()['made'] = 1",
        "def __getattr__(name): ...",
        "def f():\n    global made",
    ):
        (folder / "single.py").write_text(f"{CODE}{line}\n")
        assert custom_signature("single:made") is None, line
    (folder / "single.py").write_bytes(b"\0")
    with pytest.raises(CustomCodeError, match="the module single cannot be imported: "):
        custom_signature("single:known")


def test_an_error_names_the_last_line_of_a_users_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helps.py").write_text("import json\n\ndef read(text):\n    return json.loads(text)\n")
    (tmp_path / "calls.py").write_text("import helps\n\ndef deep(text):\n    return helps.read(text)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="Expecting") as raised:
        pkgutil.resolve_name("calls:deep")("nothing")
    words = "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"
    assert one_line(raised.value) == f"{words} (helps.py, line 4)"
    assert one_line(raised.value.with_traceback(None)) == words
    with pytest.raises(CustomCodeError) as refused:
        custom_signature("calls:deeper")
    assert one_line(refused.value).endswith(f" (test_signatures.py, line {refused.tb.tb_lineno})"), "not this package's"
