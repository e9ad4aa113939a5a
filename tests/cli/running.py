"""Running hostspec as its users do, and its peer beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hostspec.cli.main import main

PEER = "containers-storage"

_OURS = (sys.executable, "-c", "import sys; from hostspec.cli.main import main; sys.exit(main())")


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


class Commands:
    """Runs commands on one store."""

    def __init__(self, directory: Path, *, driver: str = "vfs", program: tuple[str, ...] = _OURS) -> None:
        self.root = directory / "graph"
        self.run_root = directory / "run"
        self.store_flags = ("-g", str(self.root), "-R", str(self.run_root), "-s", driver)
        self.command = (*program, *self.store_flags)
        self._hidden = re.compile(re.escape(str(directory)))

    def __call__(self, *words: str, content: bytes = b"") -> Done:
        done = subprocess.run(
            [*self.command, *words],
            input=content,
            capture_output=True,
            check=False,
            # The machine's own storage.conf may have options for another driver.
            env={**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull, "PYTHONWARNINGS": "error"},
        )
        return Done(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def good(self, *words: str, content: bytes = b"") -> str:
        """Run a command that must succeed and, if it is ours, say nothing but its result."""
        done = self(*words, content=content)
        assert done.code == 0, f"{words}: {done}"
        assert done.err == "" or PEER in self.command, f"{words}: {done}"
        return done.out

    def through_main(self, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
        """Return what runs the same commands in this process."""

        def run(*words: str) -> Done:
            code = main([*self.store_flags, *words])
            return Done(code, *capfd.readouterr())

        return run

    def comparable(self, output: str) -> str:
        """Hide what differs between two runs of the same: where the store is, random IDs and times."""
        text = re.sub(r"(?<!sha256:)\b[0-9a-f]{64}\b", "ID", self._hidden.sub("STORE", output))
        return re.sub(r'"created":"[^"]*"', '"created":"TIME"', text)
