"""``hostspec new-driver``: a complete distribution to start a graph driver from.

``distribution/`` holds its files as templates, ``skeleton`` writes the hooks into the driver's,
``command`` is the sub-command around them.
"""

from hostspec.cli.new_driver.command import new_driver

__all__ = ["new_driver"]
