"""Small layer tars, and what to compare them with."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping

MAP = "0:100000:65536"
OTHER_MAP = "0:200000:65536"


def tar_of(files: Mapping[str, bytes | None], *, uid: int = 0, gid: int = 0) -> bytes:
    """Make a tar of files; a name without content is a directory."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.uid, member.gid, member.mtime = uid, gid, 1_700_000_000
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            else:
                member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content or b""))
    return target.getvalue()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
