"""Writing that is all or nothing: temporary names beside the target, renamed when everything is there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from statespace_em.errors import DataError

PICTURES = ("regimes.png", "components.png", "track.png", "states.png")
OUTPUTS = ("model.nc", "posterior.nc", "decoded.csv", *PICTURES)


class OutputError(DataError):
    """The output cannot be written there."""


def check_folder(target: Path, *, force: bool) -> None:
    """Refuse a folder in which an earlier run would be overwritten."""
    if target.exists() and not target.is_dir():
        raise OutputError(f"{str(target)!r} is a file, expected a folder to write into: choose another --out.")
    there = [name for name in OUTPUTS if (target / name).exists()]
    _check_writable(target if target.exists() else _home(target))
    if there and not force:
        raise OutputError(f"{str(target)!r} has {', '.join(there)} already: choose another --out, or pass --force.")


def check_file(target: Path, *, force: bool) -> None:
    """Refuse to overwrite a file."""
    if target.is_dir():
        raise OutputError(f"{str(target)!r} is a folder, expected a file: choose another --out.")
    if target.exists() and not force:
        raise OutputError(f"{str(target)!r} exists already: choose another --out, or pass --force.")
    parent = Path(os.path.abspath(target)).parent
    if not parent.is_dir():
        raise OutputError(f"there is no folder {str(parent)!r} to write {target.name!r} into.")
    _check_writable(parent)


@contextmanager
def new_folder(target: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary folder whose files become those of ``target`` at the end, and vanish after an error."""
    target = Path(os.path.abspath(target))
    check_folder(target, force=force)
    temporary = _home(target) / _temporary_name(target)
    try:
        temporary.mkdir()
    except OSError as error:
        raise OutputError(f"{str(temporary.parent)!r} cannot be written to ({error.strerror}).") from error
    try:
        yield temporary
        check_folder(target, force=force)  # another run may have been faster
        if target.exists():
            _exchange(temporary, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(target: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary name whose file becomes ``target`` at the end, and vanishes after an error."""
    target = Path(os.path.abspath(target))
    check_file(target, force=force)
    temporary = target.parent / _temporary_name(target)
    try:
        yield temporary
        check_file(target, force=force)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _home(target: Path) -> Path:
    """Folder nearest above that exists."""
    return next(folder for folder in Path(os.path.abspath(target)).parents if folder.is_dir())


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{str(folder)!r} cannot be written to (no permission): choose another --out.")


def _temporary_name(target: Path) -> str:
    return f".{target.name}.{secrets.token_hex(4)}.part"


def _exchange(new: Path, target: Path) -> None:
    """Put the files of a new run in the place of those of an old one; undo it all if one fails."""
    names = [path.name for path in new.iterdir()]
    old = new / "old"
    old.mkdir()
    placed: list[str] = []
    try:
        for name in OUTPUTS:
            if (target / name).exists():
                (target / name).replace(old / name)
        for name in names:
            placed.append(name)
            (new / name).replace(target / name)
    except BaseException:
        for name in placed:
            (target / name).unlink(missing_ok=True)
        for path in old.iterdir():
            path.replace(target / path.name)
        raise
