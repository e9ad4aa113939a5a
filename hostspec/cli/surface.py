"""Which sub-commands there are.

Names, flags and positionals of those that ``containers-storage`` has are the same as there.
"""

from __future__ import annotations

from hostspec.cli.grammar import Command, Flag, UsageError

__all__ = ["COMMANDS", "GLOBAL_FLAGS", "GROUPS", "find_command"]

GLOBAL_FLAGS = (
    Flag(("-g", "--graph"), "directory of the store", "DIR"),
    Flag(("-R", "--run"), "directory for what need not survive a reboot", "DIR"),
    Flag(("-s", "--storage-driver"), "driver to use", "NAME"),
    Flag(("--storage-opt",), "option for the store or a driver, as KEY=VALUE", "KEY=VALUE", repeats=True),
    Flag(("-D", "--debug"), "show each driver operation, and where an error came from"),
    Flag(("-h", "--help"), "explain, and do nothing"),
)

JSON = Flag(("-j", "--json"), "print JSON")
NAME = Flag(("-n", "--name"), "a name for it", "NAME", repeats=True)
ID = Flag(("-i", "--id"), "the ID it shall have (default: a new one)", "ID")
METADATA = Flag(("-m", "--metadata"), "text to keep with it", "TEXT")
METADATA_FILE = Flag(("-f", "--metadata-file"), "file with the text to keep with it", "FILE")
UIDMAP = Flag(("--uidmap",), "UIDs: container, host, size", "C:H:S", repeats=True)
GIDMAP = Flag(("--gidmap",), "GIDs: container, host, size (default: as --uidmap)", "C:H:S", repeats=True)
HOST_UIDMAP = Flag(("--hostuidmap",), "do not map UIDs")
HOST_GIDMAP = Flag(("--hostgidmap",), "do not map GIDs")
MAPS = (UIDMAP, GIDMAP, HOST_UIDMAP, HOST_GIDMAP)
LABEL = Flag(("-l", "--label"), "SELinux label for its mounts", "LABEL")
READ_ONLY = Flag(("-r", "--readonly"), "an image's layer, not to be written again")
FILE = Flag(("-f", "--file"), "file to use instead of standard input or output", "FILE")
QUIET = Flag(("-q", "--quiet"), "print IDs only")
QUICK = Flag(("-q", "--quick"), "print IDs only")
STRATEGY = Flag(("--idmap-strategy",), "how the map is made: auto, shift, template or copy", "STRATEGY")

GROUPS: dict[str, tuple[Command, ...]] = {
    "Look around": (
        Command(
            ("drivers",),
            "",
            "list the installed drivers, and why one cannot be used here",
            "inspection:drivers",
            (JSON,),
            "hostspec drivers",
        ),
        Command(
            ("info",),
            "",
            "describe this store, its driver, and which ways of ID mapping work here",
            "inspection:info",
            (*MAPS, JSON),
            "hostspec info --uidmap 0:100000:65536",
        ),
        Command(("status",), "", "print the driver's own facts", "inspection:status", (JSON,)),
        Command(("version",), "", "print versions", "inspection:version", (JSON,)),
    ),
    "Images": (
        Command(
            ("import",),
            "SOURCE",
            "make an image from oci:DIR[:TAG], a root directory or its tar, any compression",
            "images:import_image",
            (
                NAME,
                Flag(("--layer",), "directory or tar to add as a further layer", "PATH", repeats=True),
                JSON,
            ),
            "hostspec import --name debian ./rootfs",
        ),
        Command(("images",), "", "list images", "images:images", (QUIET, JSON), "hostspec images"),
        Command(("image",), "ID...", "describe images", "images:image", (JSON,)),
        Command(
            ("create-image", "createimage"),
            "[LAYER]",
            "make an image of a layer that exists",
            "images:create_image",
            (
                NAME,
                ID,
                Flag(("-d", "--digest"), "the image's digest", "DIGEST"),
                METADATA,
                METADATA_FILE,
                JSON,
            ),
        ),
        Command(
            ("delete-image", "deleteimage"),
            "ID",
            "delete an image, its mapped copies and the layers nobody else needs",
            "images:delete_image",
            (Flag(("-t", "--test"), "only print what would be deleted"), JSON),
        ),
        Command(("mapped",), "", "list the copies made for ID maps", "images:mapped", (JSON,)),
    ),
    "Containers": (
        Command(
            ("create-container", "createcontainer"),
            "IMAGE",
            "make a writable layer on an image, under an ID map if you like",
            "containers:create_container",
            (NAME, ID, METADATA, METADATA_FILE, *MAPS, STRATEGY, JSON),
            "hostspec create-container --uidmap 0:100000:65536 debian",
        ),
        Command(("containers",), "", "list containers", "containers:containers", (QUIET, JSON)),
        Command(("container",), "ID...", "describe containers", "containers:container", (JSON,)),
        Command(
            ("delete-container", "deletecontainer"),
            "ID",
            "delete a container and its layer",
            "containers:delete_container",
            (JSON,),
        ),
    ),
    "Mounts": (
        Command(
            ("mount",),
            "ID...",
            "mount containers or layers, and print where",
            "mounts:mount",
            (Flag(("-r", "--ro", "--read-only"), "read-only; needed for an image"), LABEL, JSON),
            "hostspec mount web",
        ),
        Command(
            ("unmount", "umount"),
            "ID...",
            "give a mount back",
            "mounts:unmount",
            (Flag(("-f", "--force"), "whatever others still use it"), JSON),
        ),
        Command(("mounted",), "ID...", "tell whether they are mounted", "mounts:mounted", (JSON,)),
    ),
    "Layers": (
        Command(
            ("layers",),
            "",
            "list layers, and what uses each",
            "layers:layers",
            (QUICK, Flag(("-t", "--tree"), "draw who stands on whom"), JSON),
        ),
        Command(("layer",), "ID...", "describe layers", "layers:layer", (JSON,)),
        Command(
            ("create-layer", "createlayer"),
            "[PARENT]",
            "make an empty layer",
            "layers:create_layer",
            (NAME, ID, READ_ONLY, *MAPS, LABEL, JSON),
        ),
        Command(
            ("import-layer", "importlayer"),
            "[PARENT]",
            "make a layer from a tar, any compression",
            "layers:import_layer",
            (FILE, NAME, ID, READ_ONLY, *MAPS, LABEL, JSON),
        ),
        Command(
            ("changes",), "LAYER [REFERENCE]", "list what differs from the parent", "content:changes", (JSON,)
        ),
        Command(
            ("diff",),
            "LAYER [REFERENCE]",
            "write the difference to the parent as a tar",
            "content:diff",
            (
                FILE,
                Flag(("-u", "--uncompressed"), "not compressed"),
                Flag(("-c", "--gzip"), "compressed with gzip"),
                Flag(("-b", "--bzip2"), "compressed with bzip2"),
                Flag(("-x", "--xz"), "compressed with xz"),
            ),
        ),
        Command(
            ("diffsize", "diff-size"),
            "LAYER [REFERENCE]",
            "print the bytes in the difference",
            "content:diff_size",
        ),
        Command(
            ("applydiff", "apply-diff"), "LAYER", "unpack a tar into a layer", "content:apply_diff", (FILE,)
        ),
        Command(
            ("delete-layer", "deletelayer"),
            "ID",
            "delete a layer that nothing stands on",
            "layers:delete_layer",
            (JSON,),
        ),
    ),
    "Any object": (
        Command(
            ("exists",),
            "ID...",
            "tell whether they exist",
            "objects:exists",
            (
                Flag(("-l", "--layer"), "only as layers"),
                Flag(("-i", "--image"), "only as images"),
                Flag(("-c", "--container"), "only as containers"),
                Flag(("-q", "--quiet"), "print nothing, only exit"),
                JSON,
            ),
        ),
        Command(("get-names", "getnames"), "ID", "print its names", "objects:get_names", (JSON,)),
        Command(("add-names", "addnames"), "ID", "give it more names", "objects:add_names", (NAME, JSON)),
        Command(
            ("set-names", "setnames"), "ID", "give it these names instead", "objects:set_names", (NAME, JSON)
        ),
        Command(
            ("remove-names", "removenames"), "ID", "take names from it", "objects:remove_names", (NAME, JSON)
        ),
        Command(
            ("metadata",),
            "ID...",
            "print the text kept with it",
            "objects:metadata",
            (Flag(("-q", "--quiet"), "the text only"), JSON),
        ),
        Command(
            ("set-metadata", "setmetadata"),
            "ID",
            "keep a text with it",
            "objects:set_metadata",
            (METADATA, Flag(("-f", "--metadata-file"), "file with the text", "FILE")),
        ),
        Command(("delete",), "ID...", "delete containers, images and layers", "objects:delete", (JSON,)),
    ),
    "The whole store": (
        Command(("wipe",), "", "delete everything in the store", "inspection:wipe", (JSON,)),
        Command(
            ("shutdown",),
            "",
            "unmount everything",
            "inspection:shutdown",
            (Flag(("-f", "--force"), "whatever is in use"), JSON),
        ),
        Command(
            ("demo",),
            "",
            "import a root file system, map it on every driver that works here, and print the figures",
            "demo:demo",
            (
                Flag(("--rootfs",), "root directory or tar to use", "DIR|TAR"),
                Flag(("--image",), "OCI image to use", "oci:DIR"),
                Flag(("--scratch",), "directory to work in (default: a temporary one)", "DIR"),
                JSON,
            ),
            "hostspec demo --rootfs ./debian-root",
        ),
    ),
}

COMMANDS = tuple(command for group in GROUPS.values() for command in group)


def find_command(name: str) -> Command:
    """Return the sub-command of that name or alias.

    Raises:
        UsageError: There is none.
    """
    for command in COMMANDS:
        if name in command.names:
            return command
    import difflib  # noqa: PLC0415 - only a mistake needs it

    close = difflib.get_close_matches(name, [each for command in COMMANDS for each in command.names], n=1)
    hint = f"; did you mean {close[0]}?" if close else "; see hostspec --help"
    raise UsageError(name, f"no such command{hint}")
