"""The pages on Python: their snippets run as they stand, and every export has its place on the API page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import robustbench_cmic
from tests.conftest import ROOT, command
from tests.test_docs import small

DOCS = ROOT / "docs"
VERSION = re.escape(robustbench_cmic.__version__)


def snippets(page: str) -> str:
    """All Python of a page, in the order in which one reads it."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL))


def run_page(page: str, folder: Path) -> str:
    (folder / "page.py").write_text(snippets(page))
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_results_in_pandas(tmp_path: Path) -> None:
    """On the committed results, as in a clone."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    printed = run_page("pandas.md", tmp_path)
    assert (tmp_path / "worst_case.svg").stat().st_size > 5_000
    left = [int(number) for number in re.findall(r"^seed \d: (\d+) of \d+ images, the first \[", printed, re.MULTILINE)]
    assert len(left) == 3
    assert min(left) > 20, "the step on the margin breaks what the step on cross entropy leaves"


def test_cmic_in_your_own_loop(tmp_path: Path) -> None:
    printed = run_page("own_loop.md", tmp_path)
    assert re.search(r"^\{'total': .*'ce': .*'cmi': .*'separation': ", printed, re.MULTILINE)
    accuracies = [float(number) for number in re.findall(r"^PGD on \w+: ([\d.]+)%$", printed, re.MULTILINE)]
    assert len(accuracies) == 2
    assert all(0 <= accuracy < 90 for accuracy in accuracies)
    rivals = dict(re.findall(r"^(CenterLoss|CosFace|LargeMarginGaussian): ([\d.]+)%$", printed, re.MULTILINE))
    assert rivals.keys() == {"CenterLoss", "CosFace", "LargeMarginGaussian"}
    assert all(float(clean) > 85 for clean in rivals.values()), rivals
    (ncmi,) = re.findall(r"^clean NCMI (\S+)$", printed, re.MULTILINE)
    assert 0 < float(ncmi) < 0.2


def test_a_model_of_a_suite(tmp_path: Path) -> None:
    """On the suite that the page names, at the size of seconds."""
    (tmp_path / "digits.yaml").write_text(small(ROOT / "suites" / "digits.yaml"))
    run = command("run", "digits.yaml", "--results", "mine", "--only", "cnn-ce.s0.train.*", "--jobs", "1")
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = run_page("python.md", tmp_path)
    clean, attacked = (
        float(number) for number in re.findall(r"^\w+: accuracy ([\d.]+)%, NCMI 0\.", printed, re.MULTILINE)
    )
    assert clean > 20
    assert attacked < clean
    assert re.search(r"^flags: \[.*'saturated'.*\]$", printed, re.MULTILINE), printed
    (survive,) = re.findall(r"^worst case: \{0\.05: ([\d.]+), 0\.1: [\d.]+\}$", printed, re.MULTILINE)
    assert 100 * float(survive) < clean


def test_every_export_is_on_the_api_page() -> None:
    text = (DOCS / "python.md").read_text()
    exports = [name for name in robustbench_cmic.__all__ if name != "__version__"]
    assert sorted(re.findall(r"^::: robustbench_cmic\.(\w+)$", text, re.MULTILINE)) == sorted(exports)
    assert sorted(re.findall(r"\[`(\w+)`\]\(#robustbench_cmic\.\1\)", text)) == sorted(exports)
    for name in exports:
        assert len(getattr(robustbench_cmic, name).__doc__.splitlines()) > 2, f"{name} says too little"


# --- citing --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def citation() -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    return found


AUTHORS = ["Yang, En-Hui", "Mohajer Hamidi, Shayan", "Ye, Linfeng", "Tan, Renhao", "Yang, Beverly"]


def test_the_citation_file_is_one(citation: dict[str, object]) -> None:
    """What CFF 1.2.0 requires, and no key that it does not know."""
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    known = {"cff-version", "message", "type", "title", "authors", "version", "license", "keywords", "references"}
    assert citation.keys() <= known
    assert (citation["cff-version"], citation["type"], citation["license"]) == ("1.2.0", "software", "MIT")
    assert citation["version"] == robustbench_cmic.__version__
    references = citation["references"]
    assert isinstance(references, list)
    for reference in references:
        assert {"type", "title", "authors"} <= reference.keys()
        assert [f"{each['family-names']}, {each['given-names']}" for each in reference["authors"]] == AUTHORS
        assert isinstance(reference["year"], int)
        assert all(isinstance(reference.get(key, ""), str) for key in ("doi", "start", "end", "url"))
    assert references[0]["url"] == "https://arxiv.org/abs/2309.09123"


def test_the_bibtex_says_the_same(citation: dict[str, object]) -> None:
    text = (DOCS / "citing.md").read_text()
    assert re.search(rf"version = {{{VERSION}}}", text)
    authors = re.findall(r"^  author +\= \{(.*)\},$", text, re.MULTILINE)
    assert authors[1:] == [" and ".join(AUTHORS)] * 2
    references = citation["references"]
    assert isinstance(references, list)
    for key in ("doi", "volume", "year", "journal", "title"):
        assert f"{{{references[1][key]}}}" in text, key
