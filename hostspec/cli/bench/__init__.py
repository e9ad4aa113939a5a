"""``hostspec bench``: the standard work of a driver, measured beside the other installed drivers.

``material`` is the tree that it is done with, ``work`` what is done, ``command`` the sub-command around it.
"""

from hostspec.cli.bench.command import bench

__all__ = ["bench"]
