"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait


def exit_with_parent() -> None:
    """End this process with its parent, `kill -9` included: an orphan would write into folders that others may lock."""
    parent = parent_process()
    if parent is None:  # started otherwise
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
