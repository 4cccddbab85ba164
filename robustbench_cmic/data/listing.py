"""Which files of a user's folder are its images, of which class, and which are left out."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robustbench_cmic.data.base import DataError, Labels

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MOST_NAMED = 10
"""Files named in one message."""
_RECENT = 2 * 10**9
"""Nanoseconds: clocks of file systems may be as coarse as 2 s."""


class LeftOut(NamedTuple):
    """A file that is not among the images: its path in the folder, and why, as in `3 of type .gif`."""

    name: str
    why: str


@dataclass(frozen=True)
class Listing:
    """The images of both splits, sorted, with the label of each; names that begin with a dot are no files here.

    Of a folder that nothing is trained on there is the split `test` alone.
    """

    root: Path
    classes: list[str]
    files: dict[str, list[Path]]
    labels: dict[str, Labels]
    left_out: list[LeftOut]

    @property
    def first(self) -> str:
        """The split whose moments are taken: `train`, or `test` where there is no other."""
        return next(iter(self.files))

    def state(self, now: int) -> str:
        """A hash over all that the file system says of the files: while it stays the same, none is read again.

        With sizes and times go the numbers of the files, which tell one from another that has taken its name, and the
        time at which the system saw the last change, which nobody can set. A file that was changed shortly before
        `now` (nanoseconds) may be changed again within the same tick of that clock; the hash is empty then, and counts
        for nothing.
        """
        digest = hashlib.sha256()
        for file in (file for split in self.files.values() for file in split):
            stat = file.stat()
            if stat.st_ctime_ns > now - _RECENT:
                return ""
            facts = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            digest.update(f"{file.relative_to(self.root)}\0{facts}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def left_out_text(self) -> str:
        """One line on what is left out; empty where nothing is."""
        if not self.left_out:
            return ""
        counts = Counter(entry.why for entry in self.left_out)
        kinds = ", ".join(f"{count} {why}" for why, count in counts.most_common())
        files = "1 file is" if len(self.left_out) == 1 else f"{len(self.left_out)} files are"
        return f"{self.root}: {files} left out: {kinds}; the first: {self.left_out[0].name}"


def list_images(root: Path, train: bool = True) -> Listing:
    """The files of `train/<class>/` and `test/<class>/`, or `val/<class>/` where there is no `test`.

    Not those of `train` where it is False.

    Raises:
        DataError: folders or files that are missing, classes that differ between the splits.
        OSError: a folder cannot be read.
    """
    folders = {"train": root / "train"} if train else {}
    folders["test"] = root / "test" if (root / "test").is_dir() else root / "val"
    for split, folder in folders.items():
        if not folder.is_dir():
            wanted = "train" if split == "train" else "test` or `val"
            raise DataError(
                f"{root}: there is no folder `{wanted}` in it; images lie in train/<class>/ and test/<class>/"
            )
    names = {split: {entry.name for entry in _seen(folder) if entry.is_dir()} for split, folder in folders.items()}
    for one, other in (("train", "test"), ("test", "train")) if train else ():
        extra = sorted(names[one] - names[other])
        if extra:
            some = ", ".join(extra[:MOST_NAMED])
            raise DataError(f"{root}: the splits should have the same classes; only {folders[one].name} has {some}")
    first = next(iter(folders))
    classes = sorted(names[first])
    if len(classes) < 2:
        raise DataError(f"{folders[first]}: should hold at least 2 folders, one a class, not {len(classes)}")
    files: dict[str, list[Path]] = {}
    labels: dict[str, Labels] = {}
    left_out: list[LeftOut] = []
    for split, folder in folders.items():
        left_out += [_left_out(root, file, "beside the folders of classes") for file in _seen(folder, folders=False)]
        by_class = [_image_files(root, folder / name, left_out) for name in classes]
        files[split] = [file for members in by_class for file in members]
        labels[split] = np.repeat(np.arange(len(classes)), [len(members) for members in by_class])
    return Listing(root, classes, files, labels, left_out)


def _seen(folder: Path, folders: bool = True) -> list[Path]:
    """What a folder holds, but for hidden names; `folders`: those in it, too."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return [entry for entry in entries if folders or not entry.is_dir()]


def _image_files(root: Path, folder: Path, left_out: list[LeftOut]) -> list[Path]:
    """The images of one class; everything else goes to `left_out`."""
    files, others = [], []
    for entry in _seen(folder):
        if entry.is_dir():
            others += [_left_out(root, file, "in folders within a class") for file in _within(entry)]
        elif not entry.exists():
            others.append(_left_out(root, entry, "links to nothing"))
        elif not entry.is_file():
            others.append(_left_out(root, entry, "no regular files"))
        elif entry.suffix.lower() not in SUFFIXES:
            kind = f"of type {entry.suffix.lower()}" if entry.suffix else "without a type"
            others.append(_left_out(root, entry, kind))
        else:
            files.append(entry)
    if not files:
        but = f", but {len(others)} others, the first {others[0].name}" if others else ""
        raise DataError(f"{folder}: holds no image file ({', '.join(sorted(SUFFIXES))}){but}")
    left_out += others
    return files


def _within(folder: Path) -> list[Path]:
    """All files below a folder; a link to a folder is one of them."""
    if folder.is_symlink():
        return [folder]
    return sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names if name[0] != ".")


def _left_out(root: Path, file: Path, why: str) -> LeftOut:
    # Names may hold bytes that are no text; records are text.
    name = file.relative_to(root).as_posix().encode(errors="surrogateescape").decode(errors="replace")
    return LeftOut(name, why)
