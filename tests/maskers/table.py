"""Which flag catches which masker: trains the honest models, wraps the maskers around the plain one, audits all.

    python -m tests.maskers.table --output docs/maskers.md

goes through the command line of the package, takes some minutes, and fails where a masker is not flagged or an honest
model is.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from robustbench_cmic.audit import RULES
from robustbench_cmic.plan.cell import title
from robustbench_cmic.report import Results, read_results, summarize
from robustbench_cmic.report.about import origin
from robustbench_cmic.report.tables import escaped, table
from tests.maskers.nets import MASKERS

ROOT = Path(__file__).resolve().parents[2]
Suite = dict[str, Any]


def honest_suite() -> Suite:
    """The suite of honest models, as data."""
    suite: Suite = yaml.safe_load((Path(__file__).parent / "honest.yaml").read_text())
    return suite


def masker_suite(honest: Suite, weights: Path) -> Suite:
    """The same attacks on every masker, with the weights of the plain model: `weights/plain-s{seed}.safetensors`."""
    models = [
        {
            "id": masker.__name__,
            "architecture": f"tests.maskers.nets:{masker.__name__}",
            "weights": f"{weights}/plain-s{{seed}}.safetensors",
        }
        for masker in MASKERS
    ]
    kept = {key: value for key, value in honest.items() if key not in ("training", "models")}
    return kept | {"suite": "maskers", "models": models}


def run_both(honest: Suite, folder: Path) -> tuple[Results, Results]:
    """Run the honest suite, then the maskers on its plain weights; returns what the records of both say."""
    honest_results = _run(honest, folder)
    for cell in honest_results.plan.of("train"):
        if cell.model == "plain":
            weights = folder / "results.work" / "honest" / f"{cell.id}.safetensors"
            shutil.copy(weights, folder / f"plain-s{cell.seed}.safetensors")
    return honest_results, _run(masker_suite(honest, folder), folder)


def _run(suite: Suite, folder: Path) -> Results:
    file = folder / f"{suite['suite']}.yaml"
    file.write_text(yaml.safe_dump(suite))
    command = [sys.executable, "-m", "robustbench_cmic", "run", str(file), "--results", str(folder / "results")]
    # Exit code 1: attacks that crash for want of a gradient fail their cells, as they should.
    if subprocess.run(command, cwd=ROOT).returncode not in (0, 1):
        raise RuntimeError(f"`{' '.join(command)}` failed")
    return read_results(folder / "results" / suite["suite"])


def raised(results: Results) -> dict[str, dict[int, set[str]]]:
    """Model -> seed -> names of its flags, those of worst cases among them."""
    found = {
        cell.model: {other.seed: set[str]() for other in results.plan.of("train")} for cell in results.plan.of("train")
    }
    for flag in summarize(results).flags:
        found[flag.model][flag.seed].add(flag.name)
    return found


def page(honest: Results, maskers: Results) -> str:
    """The table as Markdown."""
    lines = [
        "# What the audit catches\n",
        "Defences that are none, around one plain network, and honest models, on digits. A number says for how many "
        "seeds a flag was raised. Made by `python -m tests.maskers.table` from `tests/maskers/nets.py`.\n",
    ]
    for heading, results in (("Maskers", maskers), ("Honest models", honest)):
        rows = []
        for model, by_seed in raised(results).items():
            counts = {name: sum(name in names for names in by_seed.values()) for name in RULES}
            shown = ", ".join(f"{name} {count}/{len(by_seed)}" for name, count in counts.items() if count)
            rows.append([f"`{model}`", shown or "none"])
        lines += [f"## {heading}\n", table(rows, ["model", "flags raised (seeds)"])]
    origins = [f"- {label}: {escaped(text)}" for label, text in origin(maskers)]
    return "\n".join([*lines, "## Where the numbers come from\n", *origins]) + "\n"


def wrong(honest: Results, maskers: Results) -> list[str]:
    """Sentences about maskers that were not flagged, honest models that were, and audits that crashed."""
    found = [
        f"{model} with seed {seed} is not flagged"
        for model, by_seed in raised(maskers).items()
        for seed, names in by_seed.items()
        if not names - {"not-audited", "audit-failed", "few-examples", "no-strong-attack"}
    ]
    found += [
        f"{model} with seed {seed} is honest, and flagged: {', '.join(sorted(names))}"
        for model, by_seed in raised(honest).items()
        for seed, names in by_seed.items()
        if names
    ]
    for results in (honest, maskers):
        records = [results.records.get(cell.id) for cell in results.plan.of("audit")]
        found += [f"{title(record.cell)}: {record.reason}" for record in records if record and record.status != "ok"]
    return found


def main() -> int:
    """Run, print, write; 1 where the audit is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--folder", type=Path, help="keep the results here, and go on from them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        both = run_both(honest_suite(), folder)
    text = page(*both)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text)
    problems = wrong(*both)
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
