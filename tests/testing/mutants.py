"""The conformance suite on every driver that has a fault, and on the sound ones that they derive from.

``test_the_suite_catches_faults.py`` runs this file, of each class the tests that it says catch the fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from hostspec.driver import GraphDriver
from hostspec.plugins import DriverFactory
from hostspec.testing import DriverConformance, DriverOpener
from tests.testing import faulty_copies, faulty_drivers, faulty_lives, faulty_tars
from tests.testing.sound_vfs_driver import SoundVfsDriver

FAULTS: dict[type, str] = {
    **faulty_drivers.FAULTS,
    **faulty_copies.FAULTS,
    **faulty_tars.FAULTS,
    **faulty_lives.FAULTS,
}
"""Each fault, and the test whose name says what is wrong."""
SOUND: tuple[type, ...] = (faulty_drivers.SoundDriver, SoundVfsDriver)
"""What the faulty drivers derive from."""


class Suite(DriverConformance):
    """The conformance suite, on whatever driver a class below names."""

    ways: ClassVar[Sequence[str]] = ("native",)
    random_histories: ClassVar[int] = 20
    factory: ClassVar[DriverFactory]

    @pytest.fixture
    def driver(self, open_driver_at: DriverOpener, ext4_directory: str) -> GraphDriver:
        return open_driver_at(ext4_directory, self.factory)


for tested in (*SOUND, *FAULTS):
    globals()[f"Test{tested.__name__}"] = type(
        f"Test{tested.__name__}", (Suite,), {"factory": tested, "__module__": __name__}
    )
