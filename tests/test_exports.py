"""What `import robustbench_cmic` gives: names that are there when they are asked for, and no torch before."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import robustbench_cmic
from robustbench_cmic import _PLACES
from tests.conftest import ROOT


def test_exports_are_the_functions_themselves() -> None:
    from robustbench_cmic.attacks.pgd import pgd
    from robustbench_cmic.information import measure_information
    from robustbench_cmic.objectives import Cmic, CrossEntropy
    from robustbench_cmic.report.frame import load_results, worst_case
    from robustbench_cmic.run.evaluate import evaluate
    from robustbench_cmic.run.trained_model import load_model

    own = [Cmic, CrossEntropy, evaluate, load_model, load_results, measure_information, pgd, worst_case]
    assert [getattr(robustbench_cmic, name) for name in sorted(_PLACES)] == own
    assert sorted([*_PLACES, "__version__"]) == sorted(robustbench_cmic.__all__)
    assert set(robustbench_cmic.__all__) <= set(dir(robustbench_cmic))
    with pytest.raises(AttributeError, match="no attribute 'cmic'"):
        robustbench_cmic.cmic  # noqa: B018


def test_type_checkers_are_told_the_same_places() -> None:
    tree = ast.parse((ROOT / "robustbench_cmic" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == {name: f"robustbench_cmic.{place}" for name, place in _PLACES.items()}


@pytest.mark.parametrize(
    ("used", "loaded"), [("__version__", False), ("load_results, worst_case", False), ("pgd", True), ("*", True)]
)
def test_torch_is_loaded_where_it_is_used(used: str, loaded: bool) -> None:
    code = f"import sys\nfrom robustbench_cmic import {used}\nsys.exit(10 + ('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 10 + loaded
