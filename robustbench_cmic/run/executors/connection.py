"""A connection to a cluster of Ray, all of whose nodes compute with what the main process computes with."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustbench_cmic.records import provenance
from robustbench_cmic.run.options import Options
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.signatures import one_line

_ANSWER = 600.0  # seconds in which a node has to say what is installed there; it may have to start first


def import_ray() -> Any:
    """Ray, with what is used of it.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError:
        raise UserError('--executor ray needs Ray: pip install "robustbench_cmic[ray]"') from None
    return ray


def connect(options: Options) -> Any:
    """Ray, connected to the cluster that a command line names; once a process.

    Raises:
        UserError: there is no such cluster, or Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # half a minute; 20, Ray's own, try a dead cluster for ten
    ray, address = import_ray(), options.address or "auto"
    if ray.is_initialized():
        return ray
    package = str(Path(__file__).parents[2])
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": options.jobs} if address == "local" else {}
    before = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in address:  # whether anybody is there; Ray would not say so for long
            host, port = address.removeprefix("ray://").rsplit(":", 1)
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address, runtime_env={"py_modules": [package]}, log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, OverflowError, RuntimeError, ValueError, ImportError, ray.exceptions.RayError) as error:
        hint = "; `ray start --head` starts a cluster here, and --address local one for this run alone"
        raise UserError(f"--address {address}: {one_line(error)}{hint if address == 'auto' else ''}") from None
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray's own would end this process without a word
    return ray


def node_name(node: Mapping[str, Any]) -> str:
    """What a node is called, if it was given a name (`ray start --node-name`); else its host."""
    return str(node["NodeName" if node["NodeName"] != node["NodeManagerAddress"] else "NodeManagerHostname"])


def check_nodes(ray: Any, alive: Sequence[Mapping[str, Any]]) -> None:
    """Check that all nodes compute with what this process computes with.

    Raises:
        UserError: one does not, or does not answer.
    """
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    facts, asked = ray.remote(lambda: provenance.collect()), []
    for node in alive:
        placed = facts.options(num_cpus=0, max_retries=0, scheduling_strategy=pinned(node["NodeID"], soft=False))
        asked.append((node_name(node), placed.remote()))
    for name, answer in asked:
        try:
            theirs = ray.get(answer, timeout=_ANSWER)
        except ray.exceptions.RayError as error:
            raise UserError(f"the node {name} cannot run this package: {one_line(error)}") from None
        check_same(name, provenance.collect(), theirs)


def check_same(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Check that a node computes with what this process computes with, see `provenance.collect`.

    Raises:
        UserError: it does not.
    """
    if (difference := provenance.mismatch(ours, theirs)) is not None:
        raise UserError(f"the node {name} computes with something else: {difference}; install the same there")
