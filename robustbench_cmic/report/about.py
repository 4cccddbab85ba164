"""What the numbers of a leaderboard are about: which models and attacks exactly, and where the records come from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.provenance import processor_text
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, TrainRecord
from robustbench_cmic.report.pairs import title_of
from robustbench_cmic.report.results import Results
from robustbench_cmic.suite.fields import format_eps
from robustbench_cmic.suite.training import TUNED


def objectives_text(results: Iterable[Results]) -> str:
    """`CE against CMIC-DL`: the objectives that suites train with, in their order; empty without any."""
    cells = (cell for one in results for cell in one.plan.of("train") if cell.declared["objective"] is not None)
    first, *others = dict.fromkeys(title_of(cell) for cell in cells) or ("",)
    return f"{first} against {', '.join(others)}" if others else first


def what_was_run(results: Results) -> list[tuple[str, str]]:
    """Each model by its id with all parameters, as the cells declare them, and of seeds what `_kept` says."""
    masking = {
        record.cell.model for record in results.records.values() if isinstance(record, AttackRecord) and record.masked
    }
    said = "; classes that it masks with logits of -infinity are left out of CMI, separation and NCMI"
    tuned = _tuned(results)
    return [
        (
            model,
            _model(cell.declared, results.records.get(cell.id), tuned)
            + (said if model in masking else "")
            + _kept(results, model),
        )
        for model, cell in ((model, results.trainings[model]) for model in results.models)
    ]


def _kept(results: Results, model: str) -> str:
    """Whose epoch's weights were kept where that was selected, and which seeds stopped early."""
    found = (results.records.get(cell.id) for cell in results.plan.of("train") if cell.model == model)
    records = [record for record in found if isinstance(record, TrainRecord)]
    selected = [(r.cell.seed, r.selected_epoch) for r in records if r.selected_epoch is not None and not r.stopped]
    told = [f"seed {record.cell.seed}: {record.stopped}" for record in records if record.stopped]
    if selected:
        seeds, epochs = zip(*selected, strict=True)
        s = "s" if len(selected) > 1 else ""
        which = f"epoch{s} {', '.join(map(str, epochs))} (seed{s} {', '.join(map(str, seeds))})"
        told.insert(0, f"selected by held-out images: {which}")
    return "".join(f"; {text}" for text in told)


def _tuned(results: Results) -> list[str]:
    """The keys of the optimiser in which models differ, since some have their own: `lr`, `weight_decay`."""
    optimizers = [t["optimizer"] for cell in results.plan.of("train") if (t := cell.declared["training"])]
    return [key for key in TUNED if len({optimizer.get(key) for optimizer in optimizers}) > 1]


def evaluation_facts(results: Results) -> list[tuple[str, str]]:
    """How models were trained and evaluated, and each attack with all parameters."""
    trainings: dict[str, dict[str, None]] = {}
    tuned = _tuned(results)
    for cell in results.plan.of("train"):
        if cell.declared["training"]:
            trainings.setdefault(parameters(_shared(cell.declared["training"], tuned)), {})[cell.model] = None
    facts = [("changed by --set", ", ".join(results.plan.changes))] if results.plan.changes else []
    dataset = results.plan.cells[0].declared.get("dataset", {})
    if "box" in dataset:  # of a table
        told = {key: value for key, value in dataset.items() if value not in (None, [])}
        unit = f"an eps of 1 is {2 * dataset['box']:g} standard deviations of each feature"
        tested = "each seed is tested on another fold; " if dataset.get("folds") else ""
        facts.append(("table", f"{parameters(told)}; {tested}{unit}"))
    if "holdout" in dataset:
        share = f"{dataset['holdout']:g} of the training examples, of each class its share"
        facts.append(("judged on", f"{share}, which nothing learned from; the test examples were not looked at"))
    several = len(trainings) > 1
    facts += [(f"training of {', '.join(own)}" if several else "training", text) for text, own in trainings.items()]
    evaluation = results.plan.of("attack")[0].declared["evaluation"]
    facts.append(("evaluation", parameters({key: value for key, value in evaluation.items() if key != "draw"})))
    by_attack: dict[str, list[Cell]] = {}
    for cell in results.plan.of("attack"):
        if cell.norm:
            by_attack.setdefault(cell.attack, []).append(cell)
    for name, cells in by_attack.items():
        radii = ", ".join(dict.fromkeys(format_eps(cell.eps) for cell in cells))
        facts.append((name, f"{_setting(cells)}; {cells[0].norm}, eps {radii}"))
    return facts


def _shared(training: dict[str, Any], tuned: list[str]) -> dict[str, Any]:
    """A training without what is told of each model."""
    optimizer = {key: value for key, value in training["optimizer"].items() if key not in tuned}
    return training | {"optimizer": optimizer}


def _model(declared: dict[str, Any], record: AnyRecord | None, tuned: list[str]) -> str:
    """Architecture, where its weights come from, and how it was trained as far as that is known.

    `tuned` are the keys of the optimiser that are told of each model.
    """
    model, weights, objective = (declared[part] for part in ("model", "weights", "objective"))
    parts = [model["architecture"]]
    if model["stem"] != "default":
        parts.append(f"stem {model['stem']}")
    if "zero_init_residual" in model:
        parts.append("no zero-initialised residual blocks")
    parts += [f"{key} {model[key]}" for key in ("width", "depth") if key in model]
    if "logits" in model:
        parts.append(f"logits from {model['logits']} of its output")
    if weights is not None:
        parts.append(f"weights given: {weights['file']}" + (f" under {weights['key']}" if "key" in weights else ""))
    if "initial_weights" in declared:
        begun = declared["initial_weights"]
        given = (
            f"weights given: {begun['file']}" if "file" in begun else f"the weights of {_model_of(begun['training'])}"
        )
        parts.append(f"begun with {given}")
    if model["pretrained"]:
        parts.append("weights of timm")
    if declared["training"] is None or model["normalization"] is not None:
        parts.append(_normalization(model["normalization"], record))
    if objective is not None:
        told = dict(objective)
        if "adversary" in told:  # whose method is declared only where it is not this one
            told["adversary"] = {"method": "pgd_at"} | told["adversary"]
        parts.append(f"objective {parameters(_flat(told))}")
    if declared["training"] is not None:
        parts += [f"{key} {_value(declared['training']['optimizer'][key])}" for key in tuned]
    return ", ".join(parts)


def _model_of(training: str) -> str:
    """The id of a model, from that of one of its trainings: `ce.s0.train.0123456789ab`."""
    return training.rsplit(".", 3)[0]


def _normalization(declared: dict[str, Any] | str | None, record: AnyRecord | None) -> str:
    """What is put in front of the network; a training of which nothing is said has the moments of its images."""
    if declared == "none":
        return "no normalisation in front"
    if isinstance(record, TrainRecord) and record.mean:
        moments = f"mean {_value(record.mean)}, std {_value(record.std)}"
    else:
        moments = parameters(declared) if isinstance(declared, dict) else ""
    return f"normalised by {moments or 'the default'}" + (" (the default)" if moments and declared is None else "")


def _setting(cells: list[Cell]) -> str:
    """The parameters of an attack; those that differ between radii as a range."""
    settings = [_flat(cell.declared["attack"]) for cell in cells]
    merged = {}
    for key, value in settings[0].items():
        values = [setting[key] for setting in settings]
        alike = all(other == value for other in values)
        merged[key] = value if alike else " … ".join(_value(end) for end in (min(values), max(values)))
    return parameters(merged)


def _flat(declared: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a user's own code as those of others; the hash of its file is in the records."""
    if "parameters" not in declared:
        return declared
    others = {key: value for key, value in declared.items() if key not in ("parameters", "code_sha256")}
    return {"name": declared["name"], **declared["parameters"], **others}


def parameters(declared: dict[str, Any]) -> str:
    """`cmic (lambda 0.7, beta 0.4)`: the name, if there is one, then everything else."""
    others = {key: value for key, value in declared.items() if key != "name"}
    text = ", ".join(
        f"{key} {parameters(value) if isinstance(value, dict) else _value(value)}" for key, value in others.items()
    )
    if "name" not in declared:
        return text
    return f"{declared['name']} ({text})" if others else str(declared["name"])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def origin(results: Results) -> list[tuple[str, str]]:
    """Code, versions and machines behind the records; several where they differ."""
    origins = [_origin(record.provenance) for record in results.records.values()]
    if not origins:
        return []
    values = {label: {str(own[label]) for own in origins if own[label] is not None} for label in origins[0]}
    facts = [(label, text) for label, own in values.items() if (text := "; ".join(sorted(own)))]
    planned = {cell.id for cell in results.plan.cells}
    recorded = len(planned & results.records.keys())
    return [*facts, ("records", f"{recorded} of {len(planned)} planned cells; each row of results.csv names its own")]


def _origin(provenance: dict[str, Any]) -> dict[str, Any]:
    """What a record says of it, for people; None where it is not known."""
    versions = provenance.get("versions", {}).items()
    return {
        "code": code_text(provenance, digits=12),
        "versions": ", ".join(f"{name} {version}" for name, version in versions if version),
        "platform": provenance.get("platform"),
        "processor": processor_text(provenance) or None,
        "device": provenance.get("device"),
    }


def code_text(provenance: dict[str, Any], digits: int | None = None) -> str:
    """The commit, cut to some digits, and whether anything was changed since."""
    if provenance.get("commit") is None:
        return "unknown (not run from a checkout)"
    return f"{str(provenance['commit'])[:digits]}{' with uncommitted changes' if provenance.get('dirty') else ''}"
