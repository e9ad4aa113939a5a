"""Other people's programs that read and write images."""

from __future__ import annotations

import os
import subprocess

from tests.peers.clients import require_program

__all__ = ["run"]


def run(program: str, *words: str) -> str:
    """Run a program on no store but the one that its words name, and return what it prints."""
    require_program(program)
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": os.devnull}
    done = subprocess.run([program, *words], capture_output=True, check=False, text=True, env=environment)
    assert done.returncode == 0, f"{program} {words}: {done.stderr}"
    return done.stdout
