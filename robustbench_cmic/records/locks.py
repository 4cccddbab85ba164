"""Who may write into a suite's folders: one run at a time. A look at the lock never gets into a run's way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from robustbench_cmic.suite.files import open_regular
from robustbench_cmic.suite.messages import UserError, os_error_reason

_LOCK = ".lock"
_PATIENCE = 1.0  # seconds that a run tries: whoever only looks whether the lock is held touches it for microseconds


@contextlib.contextmanager
def exclusive(*folders: Path) -> Iterator[None]:
    """Create the folders and hold their locks; the operating system lets go of them when the process dies.

    Raises:
        UserError: another run holds one of them, or they cannot be written.
    """
    import filelock  # only who takes a lock needs it

    with contextlib.ExitStack() as stack:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(filelock.FileLock(folder / _LOCK, timeout=_PATIENCE))
            except filelock.Timeout:
                raise UserError(f"another run is using {folder}; wait for it, or choose another --results") from None
            except OSError as error:
                raise UserError(f"cannot write to {folder}: {os_error_reason(error)}") from None
        yield


def is_held(folder: Path) -> bool:
    """Whether a run holds the lock of a folder now. Any number of processes may ask at once; nothing is written."""
    try:
        with open_regular(folder / _LOCK) as file:
            # Shared: two who look do not take each other for a run. Closing the file lets go of it.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or nothing that this file system can tell
        return False
    return False


def exit_with_parent() -> None:
    """End this process with its parent, `kill -9` included: an orphan would write into folders that others may lock."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    if parent is None:  # started otherwise
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
