"""``hostspec demo``: the main job on real input, on every driver that works on this machine.

``material`` is what is imported, ``places`` the file systems to try, ``listing`` how a tree is
checked, ``trial`` the job itself, ``command`` the sub-command around it.
"""

from hostspec.cli.demo.command import demo

__all__ = ["demo"]
