"""The modules that a user's own code is made of are those that Python imports for it, without what is installed."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from robustbench_cmic.suite.custom import changed_code, custom_code_sha256
from robustbench_cmic.suite.imports import own_folders, own_modules
from tests.in_process import command_here

BLOCKS = {"blocks.py": "WIDTH = 3\n"}
FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "from": ("nets", {"nets.py": "from blocks import WIDTH", **BLOCKS}),
    "import": ("nets", {"nets.py": "import torch.nn as nn, blocks", **BLOCKS}),
    "star": ("nets", {"nets.py": "from blocks import *", **BLOCKS}),
    "in a function": ("nets", {"nets.py": "def f():\n    try: import blocks\n    finally: ...\nf()", **BLOCKS}),
    "by name": ("nets", {"nets.py": "import importlib\nimportlib.import_module('blocks')", **BLOCKS}),
    "one by one": ("nets", {"nets.py": "import a", "a.py": "from b import c", "b.py": "from nets import *\nc = 1"}),
    "relative": ("own.nets", {"own/nets.py": "from .blocks import WIDTH", "own/blocks.py": "WIDTH = 3"}),
    "sibling": ("own.nets", {"own/nets.py": "from . import blocks", "own/blocks.py": "WIDTH = 3"}),
    "up": ("o.p.nets", {"o/p/nets.py": "from ..q import r\nfrom .. import s", "o/q.py": "r = 1", "o/s.py": ""}),
    "of the package": ("own.nets", {"own/nets.py": "from own import WIDTH", "own/__init__.py": "WIDTH = 3"}),
    "by the package": ("own", {"own/__init__.py": "from .nets import build", "own/nets.py": "build = 1"}),
    "all of a package": (
        "nets",
        {"nets.py": "import own.a", "own/__init__.py": "from own.b import c", "own/a.py": "", "own/b.py": "c = 1"},
    ),
    "deep": ("nets", {"nets.py": "from data.more.sets import x", "data/more/sets.py": "x = 1"}),
    "patching": ("own.nets", {"own/nets.py": "", "own/__init__.py": "import math\nmath.tau = 3"}),
    "own folder": (
        "own.nets",
        {"own/nets.py": "import sys, os\nsys.path += [os.path.dirname(__file__)]\nimport aside", "own/aside.py": ""},
    ),
}  # fmt: skip


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path; modules imported from it are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_what_python_imports_is_found_and_changes_the_hash(place: Path, form: str) -> None:
    name, files = FORMS[form]
    write(place, files)
    folders, before = own_folders(), custom_code_sha256(f"{name}:x")
    found = dict(own_modules(f"{name}:x", folders))
    importlib.import_module(name)
    loaded = {module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    sources = {file: text.encode() for file, text in files.items() if str(place / file) in loaded}
    assert set(sources) == set(files), "the form imports all of its files"
    assert sorted(found.values()) == sorted(sources.values())
    for file, text in files.items():
        (place / file).write_text(f"{text}\n# changed")
        assert custom_code_sha256(f"{name}:x", folders) not in (None, before), file
        (place / file).write_text(text)
    assert custom_code_sha256(f"{name}:x", folders) == before


def test_code_in_one_file_has_the_hash_of_the_file(place: Path) -> None:
    text = "import os, torch, timm.layers\nfrom robustbench_cmic.objectives import Objective\n"
    write(place, {"own/code.py": text, "own/__init__.py": '"""Mine."""\nfrom own.code import Objective\n', "os": ""})
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert (
        custom_code_sha256("own.code:Mine") == hashlib.sha256(text.encode()).hexdigest() != custom_code_sha256("own:x")
    )
    write(place, {"unrelated.py": "", "own/other.py": "import own.code"})
    assert custom_code_sha256("own.code:Mine") == expected
    assert custom_code_sha256("nowhere:x") is None
    assert custom_code_sha256("small_cnn") is None


def test_names_of_modules_count_and_places_do_not(place: Path) -> None:
    first = {"nets.py": "import a, b", "a.py": "x = 1", "b.py": "x = 2"}
    hashes = []
    for number, files in enumerate((first, first, first | {"a.py": "x = 2", "b.py": "x = 1"})):
        write(place / str(number), files)
        sys.path[-1] = str(place / str(number))
        sys.path_importer_cache.clear()
        hashes.append(custom_code_sha256("nets:build"))
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("mark", ["site-packages/x.py", "lib/some-1.0.dist-info/METADATA"])
def test_installed_packages_are_followed_within_themselves_alone(place: Path, mark: str) -> None:
    installed = place / mark.split("/")[0]
    write(place, {mark: ""})
    write(installed, {"mine/nets.py": "import other\nfrom mine import blocks", "mine/blocks.py": "", "other.py": ""})
    write(place, {"beside.py": "import mine.nets, other"})
    sys.path.append(str(installed))
    assert [module for module, _ in own_modules("mine.nets:build", own_folders())] == ["mine.nets", "mine.blocks"]
    assert [module for module, _ in own_modules("beside:build", own_folders())] == ["beside"]


def test_code_that_changes_the_path_is_the_same_code_afterwards(place: Path) -> None:
    write(place, {"nets.py": "import sys\nsys.path.append('elsewhere')\nimport helper", "elsewhere/helper.py": ""})
    folders = own_folders()
    declared = {"model": {"architecture": "nets:build", "code_sha256": custom_code_sha256("nets:build")}}
    sys.path.append(str(place / "elsewhere"))
    assert changed_code(declared) == "nets:build"
    assert changed_code(declared, folders) is None
    write(place, {"helper.py": ""})
    assert changed_code(declared, folders) == "nets:build"


def test_what_cannot_be_read_or_parsed_stops_nothing(place: Path) -> None:
    write(
        place,
        {"nets.py": "import broken, gone\nfrom ...above import x\n__import__('.'), __import__(1)", "broken.py": "def"},
    )
    assert [module for module, _ in own_modules("nets:build", own_folders())] == ["nets", "broken"]


SUITE = """\
suite: x
dataset: {name: digits}
training: {epochs: 1, batch_size: 64, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: own, architecture: "nets:build", objective: {name: ce}}
  - {id: aim, architecture: mlp, objective: {name: "aims:Mine"}}
  - {id: plain, architecture: mlp, objective: {name: ce}}
attacks: [{name: "pushes:push", norm: linf, eps: 0.1}]
audit: off
"""


def test_a_changed_module_makes_other_cells_of_what_imports_it(tmp_path: Path) -> None:
    write(
        tmp_path / "suites",
        {
            "x.yaml": SUITE,
            "nets.py": "from blocks import WIDTH\ndef build(shape, classes): ...",
            "aims.py": "import terms\nclass Mine:\n    def __init__(self, classes): ...",
            "pushes.py": "from steps import step\ndef push(model, images, labels, *, eps, norm): ...",
            "blocks.py": "WIDTH = 3", "terms.py": "", "steps.py": "step = 1",
        },
    )  # fmt: skip

    def cells() -> set[str]:
        done = command_here("plan", "suites/x.yaml", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return {line.split()[-1] for line in done.stdout.splitlines() if ".s0." in line}

    before = cells()
    for file, others in (("blocks", {"own"}), ("terms", {"aim"}), ("steps", {"own", "aim", "plain"})):
        with (tmp_path / "suites" / f"{file}.py").open("a") as opened:
            opened.write("\n# changed")
        now = cells()
        assert {cell.split(".")[0] for cell in now - before} == others, file
        assert any(".train." in cell for cell in now - before) == (file != "steps")
        before = now
