"""Directories on which one process mounts layers for itself alone.

They lie below the driver's run root, in a working area of this process, so that whatever a
killed process leaves mounted there is found by the next one, which takes it down
before it deletes the area.
"""

from __future__ import annotations

import errno
import os
from itertools import count

from hostspec.errors import failing
from hostspec.working_area import WorkingArea

__all__ = ["PrivateMounts"]


class PrivateMounts:
    """The private mounts of this process below one run root; used from several threads."""

    def __init__(self, run_root: str) -> None:
        """Take the directory below which to work; nothing is made on disk before the first mount.

        Args:
            run_root: Absolute path.
        """
        self._run_root = run_root
        self._area = WorkingArea(run_root)
        self._numbers = count()

    def new_directory(self) -> str:
        """Make an empty directory to mount on, and return its absolute path.

        Raises:
            DriverFailed: The operating system refused.
        """
        with failing(f"make a directory to mount on below {self._run_root}"):
            path = os.path.join(self._area.path, f"mount-{next(self._numbers)}")
            os.mkdir(path, 0o700)
        return path

    def remove_directory(self, path: str) -> None:
        """Delete a directory; one on which something is still mounted goes with the area.

        Its unmounting has failed then, and that is the error to be told.

        Raises:
            DriverFailed: The operating system refused for another reason.
        """
        with failing(f"delete {path}"):
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise

    def reclaim(self) -> int:
        """Take down what dead processes left mounted.

        Raises:
            DriverFailed: The operating system refused; the next call tries it again.
        """
        with failing(f"take down what was left mounted below {self._run_root}"):
            return self._area.reclaim()

    def close(self) -> None:
        """Give up this process's area, and take down what is still mounted in it.

        Raises:
            DriverFailed: The operating system refused; whoever reclaims next tries it again.
        """
        with failing(f"give up the mounts below {self._run_root}"):
            self._area.close()
