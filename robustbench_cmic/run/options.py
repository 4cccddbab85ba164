"""What the command line says about a run, and what of it has to be looked up on this machine. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from robustbench_cmic.data import default_folder
from robustbench_cmic.records import provenance
from robustbench_cmic.records.files import file_sha256
from robustbench_cmic.records.store import Store
from robustbench_cmic.suite import Suite
from robustbench_cmic.suite.messages import UserError


@dataclass(frozen=True)
class Options:
    """What the command line says about a run.

    Attributes:
        results: where results of all suites lie.
        work: where checkpoints and resume states lie; by default beside `results`, as `results.work`, so that two
            results folders never share any.
        seeds, only: which cells, see `plan.select`.
        limit: evaluate on this many examples; marked, never ranked.
        jobs: worker processes; None: one a core on the CPU, one on a GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        batch_size: examples that a native attack has in memory at once; results do not depend on it. None: 256 on the
            CPU, 1024 on a GPU.
        data: where data lies and is downloaded to; None: the user's cache folder.
        memory: decoded images that take more bytes are streamed; None: half of the machine's memory.
        deterministic: on a GPU, only algorithms that give the same bits each time.
        force: redo the cells that were asked for, done or not.
        tensorboard: where curves for TensorBoard are written; None: nowhere.
        executor: what carries out cells, see `run.executors`.
    """

    results: Path = Path("results")
    work: Path | None = None
    seeds: Sequence[int] = ()
    only: Sequence[str] = ()
    limit: int | None = None
    jobs: int | None = None
    device: str = "auto"
    batch_size: int | None = None
    data: Path | None = None
    memory: int | None = None
    deterministic: bool = False
    force: bool = False
    tensorboard: Path | None = None
    executor: str = "local"

    def plain(self) -> dict[str, Any]:
        """The options as plain data, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


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


def cores() -> int:
    """Cores this process may use, where the system says; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """Where and how cells are carried out; none of it decides a result.

    Attributes:
        suite: name of the suite.
        store: the suite's files.
        device: a torch device such as `cpu` or `cuda:0`.
        batch_size: examples that a native attack has in memory at once.
        data: the data folder.
        memory: decoded images that take more bytes are streamed; None: half of the machine's memory.
        loaders: processes of a training that read ahead, where images are streamed.
        deterministic: only algorithms that give the same bits each time; on the CPU they always do.
        pictured_seed: attacks on models of this seed leave pictures.
        weights: files of given weights, by their hash.
        provenance: what records say of code and machine.
    """

    suite: str
    store: Store
    device: str
    batch_size: int
    data: Path
    memory: int | None
    loaders: int
    deterministic: bool
    pictured_seed: int
    weights: dict[str, Path]
    provenance: dict[str, Any]


def make_settings(suite: Suite, options: Options) -> Settings:
    """What the command line says, with what it leaves open looked up.

    Raises:
        UserError: no such device on this machine.
    """
    device = resolve_device(options.device)
    given = [model.weights_file(seed) for model in suite.models if model.weights for seed in suite.seeds]
    return Settings(
        suite=suite.suite,
        store=Store.of_suite(suite.suite, options.results.absolute(), options.work),
        device=device,
        batch_size=options.batch_size or (1024 if device.startswith("cuda") else 256),
        data=(options.data or default_folder()).absolute(),
        memory=options.memory,
        loaders=min(16, max(1, cores() // jobs_at_once(options, device))),
        deterministic=options.deterministic,
        pictured_seed=min(suite.seeds),
        weights={sha256: file for file in given if (sha256 := file_sha256(file)) is not None},
        provenance=provenance.collect(),
    )
