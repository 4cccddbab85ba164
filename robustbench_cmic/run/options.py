"""What the command line says about a run, and what of it has to be looked up on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_cmic.data import default_data_folder
from robustbench_cmic.plan.select import Shard
from robustbench_cmic.records import provenance
from robustbench_cmic.records.files import file_sha256
from robustbench_cmic.records.store import Store
from robustbench_cmic.suite import Suite
from robustbench_cmic.suite.imports import own_folders
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.training import DeclaredOutputs


@dataclass(frozen=True)
class Options:
    """What the command line says about a run; None: what `make_settings` makes of it."""

    results: Path = Path("results")  # where results of all suites lie
    work: Path | None = None  # where the folders of `Store.work` lie
    seeds: Sequence[int] = ()  # which cells, as `only`; see `plan.select`
    only: Sequence[str] = ()
    shard: Shard | None = None
    limit: int | None = None  # evaluate on this many examples; marked, never ranked
    jobs: int | None = None  # worker processes
    device: str = "auto"  # or `cpu`, `cuda`, `cuda:N`
    batch_size: int | None = None  # examples that a native attack has in memory at once; results do not depend on it
    data: Path | None = None  # where data lies and is downloaded to; None: the user's cache folder
    memory: int | None = None  # decoded images that take more bytes are streamed; None: half of the machine's memory
    deterministic: bool = False  # on a GPU, only algorithms that give the same bits each time; those of CPUs always do
    force: bool = False  # redo the cells that were asked for, done or not
    timeout: float | None = None  # seconds that a cell may take, see `Settings`
    tensorboard: Path | None = None  # where curves for TensorBoard are written
    file: Path | None = None  # of the suite; None: not known, and results of another file are not told apart
    executor: str = "local"  # what carries out cells, see `run.executors`
    address: str | None = None  # of the cluster that an executor for one connects to
    gpus_per_cell: float = 1.0  # see `Settings.gpus`


def resolve_device(name: str) -> str:
    """`auto` is the first GPU where there is one, else the CPU.

    Raises:
        UserError: no such device on this machine.
    """
    if name == "cpu" or (name == "auto" and not Path("/dev/nvidiactl").exists()):
        return "cpu"
    import torch  # only where a GPU is asked for or likely: it takes seconds

    count = torch.cuda.device_count()
    if name == "auto":
        return "cuda:0" if count else "cpu"
    gpus = [f"cuda:{index}" for index in range(count)]
    device = "cuda:0" if name == "cuda" else name
    if device not in gpus:
        raise UserError(f"--device {name}: there is no such device here; choose from {', '.join(['cpu', *gpus])}")
    return device


def jobs_at_once(options: Options, device: str) -> int:
    """On the CPU one process a core with one thread each: cells are independent, threads of one cell are not."""
    return options.jobs or (1 if device.startswith("cuda") else cores())


def usual_batch_size(device: str) -> int:
    """Examples that a native attack has in memory at once, where nobody says how many."""
    return 1024 if device.startswith("cuda") else 256


def cores() -> int:
    """Cores this process may use, where the system says; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """Where and how cells are carried out, see `Options`; none of it decides a result."""

    suite: str  # its name
    store: Store
    device: str  # of torch, such as `cpu` or `cuda:0`
    batch_size: int
    data: Path
    memory: int | None
    loaders: int  # processes of a training that read ahead, where images are streamed
    deterministic: bool
    pictured_seed: int  # attacks on models of this seed leave pictures
    weights: dict[str, Path]  # files of given weights, by their hash
    provenance: dict[str, Any]  # what records say of code and machine
    suite_folder: Path | None = None  # of the suite's file, where its data may lie
    timeout: float | None = None  # seconds, from when a worker can begin; the executor stops a cell that takes longer
    outputs: DeclaredOutputs | None = None  # what records of trainings keep for pictures
    code: tuple[Path, ...] | None = None  # where a user's own modules lie, see `own_folders`; None: where they do now
    packed: Path | None = None  # where data sets lie that were brought to this machine, see `data.packed`
    gpus: float = 1.0  # of a card, what a cell takes of it, where an executor shares cards out


def make_settings(suite: Suite, options: Options, device: str | None = None) -> Settings:
    """What the command line says, with what it leaves open looked up.

    Without a `device` cells are carried out on this machine: raises what `resolve_device` raises.
    """
    device = device or resolve_device(options.device)
    given = [model.weights_file(seed) for model in suite.models if model.file_key for seed in suite.seeds]
    return Settings(
        suite=suite.suite,
        store=Store.of_suite(suite.suite, options.results.absolute(), options.work),
        device=device,
        batch_size=options.batch_size or usual_batch_size(device),
        data=(options.data or default_data_folder()).absolute(),
        memory=options.memory,
        loaders=min(16, max(1, cores() // jobs_at_once(options, device))),
        deterministic=options.deterministic,
        pictured_seed=min(suite.seeds),
        weights={sha256: file for file in given if (sha256 := file_sha256(file)) is not None},
        provenance=provenance.collect(),
        suite_folder=suite.dataset.suite_folder,
        timeout=options.timeout,
        outputs=suite.outputs,
        code=own_folders(),
        gpus=options.gpus_per_cell,
    )
