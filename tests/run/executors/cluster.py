"""A cluster of Ray on this machine, whose nodes share its network and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """A process and all that it and they have started."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


class Cluster:
    """A head without a processor, and nodes of one each, with some environment variables; a context manager.

    Attributes:
        address: for `--address`.
        folder: with a folder for each node, in which it has its temporary files, its home and its caches.
    """

    def __init__(self, *names: str, **variables: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rc", dir="/tmp"))  # paths of sockets are at most 107 bytes long
        self.address = f"127.0.0.1:{free_port()}"
        self._variables = variables
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._start_all(["head"], 0, "--head", "--port", self.address.partition(":")[2])
            self.start(*names)
        except BaseException:
            self.stop()
            raise

    def start(self, *names: str) -> None:
        """Start nodes, all at once, and wait until they are there."""
        self._start_all(names, 1, "--address", self.address)

    def _start_all(self, names: Sequence[str], cpus: int, *arguments: str) -> None:
        """What a busy machine gives no time may try again: Ray waits half a minute for a node, and no longer."""
        for _ in range(3):
            for name in names:
                self._begin(name, cpus, *arguments)
            names = [name for name in names if not self._is_there(name)]
        if names:
            raise RuntimeError((self.folder / names[0] / "log").read_text())

    def _begin(self, name: str, cpus: int, *arguments: str) -> None:
        own = self.folder / name
        own.mkdir(exist_ok=True)
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *arguments, "--node-name", name]
        command += ["--num-cpus", str(cpus), "--temp-dir", str(own), "--object-store-memory", "100000000"]
        command += ["--node-ip-address", "127.0.0.1", "--disable-usage-stats"]
        if "--head" in arguments:
            command += ["--include-dashboard", "false", "--no-monitor", "--ray-client-server-port", str(free_port())]
        with (own / "log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command, cwd=own, env=environment(own) | self._variables, stdout=log, stderr=subprocess.STDOUT
            )

    def _is_there(self, name: str) -> bool:
        """Wait until a node says so, or has given up."""
        log = self.folder / name / "log"
        while "Ray runtime started" not in log.read_text():
            if self._processes[name].poll() is not None:
                return False
            time.sleep(0.1)
        return True

    def kill(self, name: str) -> None:
        """SIGKILL for everything on a node, as if its power was gone."""
        process = self._processes.pop(name)
        for pid in reversed(descendants(process.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def stop(self) -> None:
        """End all nodes and remove what they have left."""
        for name in list(self._processes):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def environment(folder: Path) -> dict[str, str]:
    """That of a machine of its own, which looks often whether the others are alive, and starts as slowly as it may."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own |= dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(folder))
    own |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    own |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "4"}
    slow = {"gcs_server_request_timeout_seconds": "300", "worker_register_timeout_seconds": "300"}
    slow["agent_register_timeout_ms"] = "300000"
    cheap = {"worker_niceness": "0", "enable_worker_prestart": "false", "prestart_worker_first_driver": "false"}
    return own | {f"RAY_{name}": value for name, value in (slow | cheap).items()}
