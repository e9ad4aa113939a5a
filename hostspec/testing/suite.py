"""The whole conformance suite, as one class."""

from __future__ import annotations

from hostspec.testing.changes import Changes
from hostspec.testing.diff_apply import DiffApply
from hostspec.testing.facts import Facts
from hostspec.testing.life_cycle import LifeCycle
from hostspec.testing.mounts import Mounts
from hostspec.testing.ownership import Ownership
from hostspec.testing.templates import Templates
from hostspec.testing.untrusted_tars import UntrustedTars
from hostspec.testing.whiteouts import Whiteouts

__all__ = ["DriverConformance"]


# Pytest collects the last base first.
class DriverConformance(
    Templates, UntrustedTars, DiffApply, Changes, Whiteouts, Ownership, Mounts, Facts, LifeCycle
):
    """Everything that a driver owes, to be subclassed beside the driver.

    ::

        class TestMine(DriverConformance):
            @pytest.fixture
            def driver(self, open_driver_at, tmp_path):
                return open_driver_at(str(tmp_path), "mine")

    Every test runs twice, natively and with the native optional hooks masked, so that the fallbacks
    do their work (``-k native``, ``-k fallback`` and :attr:`ways` select). Skipped is only what
    :class:`~hostspec.values.Capabilities`, a probe of the driver or a missing privilege rules out.
    """
