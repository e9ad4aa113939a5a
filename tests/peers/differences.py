"""Where hostspec and containers-storage 1.43 may differ: every case, with its reason.

What is not here must be the same.
"""

from __future__ import annotations

import os
import stat
import tarfile

from hostspec.archive.whiteouts import WHITEOUT_PREFIX
from tests.peers.players import Outcome
from tests.peers.vocabulary import Step

__all__ = [
    "DIFFERENT_ON_EMPTY_VALUES",
    "comparable",
    "comparable_member",
    "comparable_root",
    "may_be_skipped",
    "may_differ",
    "told_of_any_maker",
]

DIFFERENT_ON_EMPTY_VALUES = {
    "create-layer --uidmap 0:0:0": "The peer records a range of no IDs, which no kernel would take.",
    "create-layer -i a/b": "The peer makes the layer's directory, by that name, at another depth.",
    "create-layer -i .": "The peer takes the directory of all layers for the layer's.",
    "shutdown more": "Who names something does not mean everything; versions after 1.43 refuse it, too.",
    "wipe more": "As above, and with more to lose.",
}
"""Commands with empty or useless values that hostspec refuses and the peer does not, each with the reason."""


def comparable(step: Step, outcome: Outcome) -> tuple[bool, str]:
    """Return what of a step's outcome must be the same."""
    # A command that fails may have printed a part of its answer; scripts look at the exit code. The
    # answer of ``exists`` is what it prints.
    if not outcome.done and step[0] != "exists":
        return False, ""
    # After the names of a new container, 1.43 writes no end of line.
    output = outcome.output.rstrip("\n")
    if step[0] != "changes":
        return outcome.done, output
    # It lists the changes of a directory in the order of a hash table, another one each time.
    return outcome.done, "\n".join(sorted(output.split("\n")))


def told_of_any_maker(step: Step, told: tuple[bool, str]) -> tuple[bool, str]:
    """Return what of a comparable outcome does not depend on which of the two made the layers."""
    done, output = told
    if step[0] != "changes":
        return told
    # Roots about which no tar says anything have other modes, see :func:`comparable_root`; the peer
    # never compares roots.
    return done, "\n".join(line for line in output.split("\n") if line != 'Modify "/"')


def may_be_skipped(step: Step, ours: Outcome) -> bool:
    """Tell whether a step that hostspec has refused cannot be played by its peer without harm."""
    mapped = "--uidmap" in step or "--gidmap" in step
    # The peer first makes the mapped copy, and then finds that the container's ID or name is taken: it
    # fails, and the copy stays.
    return step[0] == "create-container" and mapped and not ours.done


def may_differ(step: Step, ours: Outcome, theirs: Outcome) -> bool:
    """Tell whether the outcomes of a step, which are different, are allowed to be."""
    # Asked to compare with a layer that there is not, the peer compares with the parent, and says nothing.
    unknown_reference = step[0] == "changes" and len(step) > 2 and "not known" in ours.error
    if unknown_reference and not ours.done and theirs.done:
        return True
    # Whether an image is mounted, the peer cannot say: it knows layers and containers.
    return step[0] == "mounted" and ours.done and not theirs.done and "layer not known" in theirs.error


def comparable_member(member: tarfile.TarInfo) -> tuple[object, ...]:
    """Return what of a tar's member must be the same, beside a file's content."""
    # A directory has the time of the last change in it, if its tar says nothing; the peer's whiteouts have
    # that of the moment, ours none, so that the same layer always gives the same tar.
    timed = member.isreg() and not os.path.basename(member.name).startswith(WHITEOUT_PREFIX)
    # The peer writes the type of the file into the field of its permissions, too, as old programs do.
    mode = oct(stat.S_IMODE(member.mode))
    owner = member.uid, member.gid
    return member.name, member.type, mode, owner, member.size, int(member.mtime) if timed else 0


def comparable_root(driver: str, status_mode: int, owner: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    """Return what of a container's root directory must be the same.

    Args:
        driver: The store's driver.
        status_mode: Its type and permissions.
        owner: Its UID and GID.
    """
    # Where no tar says anything about it, the root of a layer has mode 0755; with the peer, 0555.
    mode = status_mode | stat.S_IWUSR
    # On btrfs, the peer leaves the root of a mapped copy to the host's root.
    return oct(mode), (0, 0) if driver == "btrfs" else owner
