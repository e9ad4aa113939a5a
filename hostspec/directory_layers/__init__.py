"""What drivers have in common whose layers are directories: where these lie, how they are mounted, the hooks.

Public: a driver of such a kind may derive from :class:`DirectoryDriver`, and need not.
"""

from hostspec.directory_layers.driver import DirectoryDriver
from hostspec.directory_layers.layers import DirectoryLayers, nearest_existing, prepare_root
from hostspec.directory_layers.options import NO_OPTIONS, DirectoryOptions, refuse_option, split_options

__all__ = [
    "NO_OPTIONS",
    "DirectoryDriver",
    "DirectoryLayers",
    "DirectoryOptions",
    "nearest_existing",
    "prepare_root",
    "refuse_option",
    "split_options",
]
