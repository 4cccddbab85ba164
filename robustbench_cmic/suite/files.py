"""Files that others may have put there: only regular ones are opened. A FIFO would block, and a device never end."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "it is a FIFO",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
    stat.S_IFSOCK: "it is a socket",
}


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes.

    Raises:
        OSError: it cannot be opened, or is no regular file; a link to nothing is none, where no file at all is a
            `FileNotFoundError`.
    """
    try:
        _check(path.stat().st_mode, path)  # first, for to open a device may do something
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link to nothing", str(path)) from None
        raise
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(handle).st_mode, path)  # again, for it may be another one now
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_regular(path: Path) -> bytes:
    """The bytes of a file; raises what `open_regular` raises."""
    with open_regular(path) as file:
        return file.read()


def _check(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(
            errno.EINVAL, f"{_KINDS.get(stat.S_IFMT(mode), 'it is a special file')}, no regular file", str(path)
        )
