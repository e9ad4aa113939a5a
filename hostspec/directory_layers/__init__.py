"""What drivers have in common whose layers are directories: where these lie, and how they are mounted.

Public: a driver of such a kind may use it, and need not.
"""

from hostspec.directory_layers.layers import DirectoryLayers, prepare_root
from hostspec.directory_layers.mounting import mount_directory, unmount_directory, unmount_everything_of

__all__ = [
    "DirectoryLayers",
    "mount_directory",
    "prepare_root",
    "unmount_directory",
    "unmount_everything_of",
]
