"""The note that a store was written by a mount program, and the program to use then.

Format and name are the Go library's (``.has-mount-program``, holding ``true`` or ``false``). Apart from
:mod:`hostspec_overlay.mount_program`, since every opening looks for the note.
"""

from __future__ import annotations

import os

from hostspec.errors import PrerequisitesMissing

__all__ = ["check_mount_program", "note_mount_program", "noted_mount_program"]

_NOTE = ".has-mount-program"
_USUAL_PROGRAM = "fuse-overlayfs"


def check_mount_program(driver: str, path: str) -> None:
    """Refuse a mount program that cannot be run.

    Raises:
        PrerequisitesMissing: There is no such program.
    """
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise PrerequisitesMissing(
            driver,
            f"option overlay.mount_program={path}: there is no such program; "
            f"install it (the package is usually called {_USUAL_PROGRAM}), or leave the option out",
        )


def noted_mount_program(driver: str, home: str) -> str:
    """Return the program to use in a store that was written by one, ``""`` in any other store.

    Raises:
        PrerequisitesMissing: It needs one, and none is installed.
    """
    note = f"{home}/{_NOTE}"
    try:
        with open(note, encoding="utf-8", errors="replace") as file:
            if file.read().strip() != "true":
                return ""
    except (FileNotFoundError, NotADirectoryError):
        return ""
    import shutil  # noqa: PLC0415 - hardly any store has the note

    found = shutil.which(_USUAL_PROGRAM)
    if found is None:
        raise PrerequisitesMissing(
            driver,
            f"layers of this store were written by a mount program (says {note}), and the kernel does not "
            f"read them rightly; install {_USUAL_PROGRAM}, or name a program by overlay.mount_program",
        )
    return found


def note_mount_program(home: str) -> None:
    """Leave the note, before a program writes the first layer.

    Raises:
        OSError: The home cannot be written.
    """
    note = f"{home}/{_NOTE}"
    try:
        with open(note, encoding="utf-8") as file:
            if file.read().strip() == "true":
                return
    except FileNotFoundError:
        pass
    with open(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
        file.truncate()
        file.write("true")
