"""The whole conformance suite, as one class."""

from __future__ import annotations

from hostspec.testing.additional_stores import AdditionalStores
from hostspec.testing.chains import Chains
from hostspec.testing.changes import Changes
from hostspec.testing.concurrency import Concurrency
from hostspec.testing.crashes import Crashes
from hostspec.testing.diff_apply import DiffApply
from hostspec.testing.facts import Facts
from hostspec.testing.id_maps import IdMaps
from hostspec.testing.life_cycle import LifeCycle
from hostspec.testing.mounts import Mounts
from hostspec.testing.ownership import Ownership
from hostspec.testing.random_operations import RandomOperations
from hostspec.testing.refusals import Refusals
from hostspec.testing.templates import Templates
from hostspec.testing.untrusted_tars import UntrustedTars
from hostspec.testing.whiteouts import Whiteouts
from hostspec.testing.writing import Writing

__all__ = ["DriverConformance"]


# Pytest collects the last base first: from the simplest to what rests on all of it.
class DriverConformance(
    RandomOperations,
    Crashes,
    Concurrency,
    IdMaps,
    AdditionalStores,
    Templates,
    UntrustedTars,
    DiffApply,
    Changes,
    Whiteouts,
    Chains,
    Ownership,
    Writing,
    Mounts,
    Refusals,
    Facts,
    LifeCycle,
):
    """Everything that a driver owes, to be subclassed beside the driver.

    ::

        class TestMine(DriverConformance):
            driver_name = "mine"

    Every test that can runs twice, natively and with the native optional hooks masked, so that the
    fallbacks do their work (``-k native``, ``-k fallback`` and :attr:`ways` select). Skipped is only
    what :class:`~hostspec.values.Capabilities`, a probe of the driver or a missing privilege rules
    out; what the driver is known not to do stands in :attr:`known_gaps`.
    """
