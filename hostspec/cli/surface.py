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
    Flag(("--image-store",), "directory of the store for images, if they have one of their own", "DIR"),
    Flag(("--transient-store",), "forget containers at the next reboot"),
    Flag(("-D", "--debug"), "show each driver operation, and where an error came from"),
    Flag(("-h", "--help"), "explain, and do nothing"),
)

# Flags that several commands have.
JSON = Flag(("-j", "--json"), "print JSON")
NAME = Flag(("-n", "--name"), "a name for it", "NAME", repeats=True)
ID = Flag(("-i", "--id"), "the ID it shall have (default: a new one)", "ID")
METADATA = Flag(("-m", "--metadata"), "text to keep with it", "TEXT")
METADATA_FILE = Flag(("-f", "--metadata-file"), "file with the text to keep with it", "FILE")
UIDMAP = Flag(("--uidmap",), "UIDs: container, host, size", "C:H:S", repeats=True)
GIDMAP = Flag(("--gidmap",), "GIDs: container, host, size (default: as --uidmap)", "C:H:S", repeats=True)
HOST_UIDMAP = Flag(("--hostuidmap",), "do not map UIDs")
HOST_GIDMAP = Flag(("--hostgidmap",), "do not map GIDs")
SUB_UIDMAP = Flag(("--subuidmap",), "map to the ranges of this user in /etc/subuid", "USER")
SUB_GIDMAP = Flag(("--subgidmap",), "map to the ranges of this group in /etc/subgid", "GROUP")
MAPS = (UIDMAP, GIDMAP, HOST_UIDMAP, HOST_GIDMAP, SUB_UIDMAP, SUB_GIDMAP)
LABEL = Flag(("-l", "--label"), "SELinux label for its mounts", "LABEL")
READ_ONLY = Flag(("-r", "--readonly"), "an image's layer, not to be written again")
FILE = Flag(("-f", "--file"), "file to use instead of standard input or output", "FILE")
QUIET = Flag(("-q", "--quiet"), "print IDs only")
QUICK = Flag(("-q", "--quick"), "print IDs only")
VOLATILE = Flag(("--volatile",), "its content need not survive a crash of the machine")
STRATEGY = Flag(("--idmap-strategy",), "how the map is made: auto, shift, template or copy", "STRATEGY")
EXPLAIN = Flag(("--explain",), "only say how the map would be made, and why so")
ONE_NAME = Flag(("-n", "--name"), "the name it gets (default: the one it has there)", "NAME")
REGISTRY = (
    Flag(("--authfile",), "file with logins for registries", "FILE"),
    Flag(("--creds",), "login for this registry", "USER[:PASSWORD]"),
    Flag(("--cert-dir",), "directory of certificates for this registry", "DIR"),
    Flag(("--tls-verify",), "require HTTPS with a valid certificate (default: true)", "BOOL"),
)

NEVER_RAN = 125
"""What podman ends with where a command line leaves it nothing to run; smaller ones are the command's own."""

# What "run" and "exec" take about a process.
PROCESS = (
    Flag(("-e", "--env"), "environment variable; NAME alone for the one here", "NAME=VALUE", repeats=True),
    Flag(("--env-file",), "file with such lines, over which --env wins", "FILE", repeats=True),
    Flag(("-w", "--workdir"), "directory to start in", "DIR"),
    Flag(("-u", "--user"), "who runs it, by name or number", "USER[:GROUP]"),
    Flag(("-i", "--interactive"), "let it read standard input"),
    Flag(("-t", "--tty"), "give it a terminal"),
    Flag(("-it", "-ti", "--console"), "-i and -t"),
)
RUN = (
    Flag(("-d", "--detach"), "return when it runs, and print the container's ID"),
    Flag(("--rm",), "delete the container when it has ended"),
    ONE_NAME._replace(summary="the container's name"),
    UIDMAP,
    GIDMAP,
    SUB_UIDMAP,
    SUB_GIDMAP,
    Flag(("--userns",), "auto: a range of IDs that nobody else has; host: no map", "auto|host"),
    STRATEGY,
    Flag(("--network",), "none (default), private or host", "NETWORK"),
    Flag(("--subnet",), "addresses of a private network (default: 10.213.0.0/20)", "CIDR"),
    *PROCESS,
    Flag(("--hostname",), "the container's host name", "NAME"),
    Flag(("--entrypoint",), "program, or JSON list, to put before COMMAND instead of the image's", "PROGRAM"),
    Flag(("--read-only",), "keep the root from being written"),
    Flag(("-v", "--volume"), "what it sees of the host", "/SOURCE:/TARGET[:OPTIONS]", repeats=True),
    Flag(("--storage-opt", "--layer-opt"), "option for its layer, as size=1G", "KEY=VALUE", repeats=True),
    Flag(("--runtime",), "OCI runtime (default: runc or crun)", "PATH"),
)

# Of each: its names, its arguments, what it does, the function that does it, its flags, an example.
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
            (*MAPS, STRATEGY, JSON),
            "hostspec info --uidmap 0:100000:65536",
        ),
        Command(
            ("status",), "", "print the driver's own facts", "inspection:status", (JSON,), ignores_more=True
        ),
        Command(("version",), "", "print versions", "inspection:version", (JSON,), ignores_more=True),
        Command(
            ("config",),
            "[FILE]",
            "print what the configuration files say, as JSON",
            "surroundings:config",
            (JSON,),
            "hostspec config /etc/containers/storage.conf",
        ),
        Command(
            ("unshare",),
            "[COMMAND...]",
            "run a command in a user namespace with your ID ranges",
            "surroundings:unshare",
            (),
            "hostspec unshare cat /proc/self/uid_map",
        ),
    ),
    "Write a driver": (
        Command(
            ("new-driver",),
            "NAME [DIR]",
            "write a distribution to start a driver from, with its tests",
            "new_driver:new_driver",
            (JSON,),
            "hostspec new-driver zfs",
        ),
        Command(
            ("bench",),
            "",
            "measure the standard work of a driver, beside the other installed drivers",
            "bench:bench",
            (
                Flag(("--driver",), "driver that comes first (default: all alike)", "NAME"),
                Flag(("--files",), "files in the tree that it works on (default: 5000)", "N"),
                Flag(("--repeat",), "samples of each (default: 5)", "N"),
                Flag(("--scratch",), "directory to work in (default: /var/tmp)", "DIR"),
                JSON,
            ),
            "hostspec bench --driver zfs",
        ),
    ),
    "Images": (
        Command(
            ("import",),
            "SOURCE",
            "make an image from oci:DIR[:TAG], an archive, a root directory or its tar",
            "images:import_image",
            (
                NAME,
                Flag(("--layer",), "directory or tar to add as a further layer", "PATH", repeats=True),
                JSON,
            ),
            "hostspec import --name debian ./rootfs",
        ),
        Command(
            ("export",),
            "IMAGE... DESTINATION",
            "write images to oci:DIR[:TAG] or docker-archive:FILE[:NAME]",
            "transfer:export",
            (
                Flag(("--compress",), "how layers in oci:DIR are: none, gzip or zstd", "KIND"),
                Flag(("--repack",), "allow layers that cannot be given back as they came"),
                JSON,
            ),
            "hostspec export debian oci:./layout:latest",
        ),
        Command(
            ("pull",),
            "SOURCE",
            "bring an image from a registry, or from any place that skopeo knows",
            "transfer:pull",
            (ONE_NAME, *REGISTRY, JSON),
            "hostspec pull quay.io/fedora/fedora:41",
        ),
        Command(
            ("push",),
            "IMAGE [DESTINATION]",
            "send an image to a registry, or to any place that skopeo knows",
            "transfer:push",
            REGISTRY,
            "hostspec push web registry.example/team/web:1.0",
        ),
        Command(
            ("copy-image",),
            "IMAGE...",
            "copy images to another store, of any driver",
            "transfer:copy_image",
            (
                NAME,
                Flag(("--to-graph",), "directory of the other store", "DIR"),
                Flag(("--to-run",), "its directory for what need not survive a reboot", "DIR"),
                Flag(("--to-driver",), "its driver (default: the one that it was made by)", "NAME"),
                Flag(("--to-opt",), "option for it, as KEY=VALUE", "KEY=VALUE", repeats=True),
                JSON,
            ),
            "hostspec copy-image --to-graph /mnt/usb/storage debian",
        ),
        Command(
            ("images",),
            "",
            "list images",
            "images:images",
            (QUIET, JSON),
            "hostspec images",
            ignores_more=True,
        ),
        Command(
            ("images-by-digest", "imagesbydigest"),
            "DIGEST",
            "list images that have a digest",
            "images:images_by_digest",
            (QUIET, JSON),
        ),
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
            ("get-image-dir", "getimagedir"),
            "ID",
            "print its directory for your own files",
            "directories:image_dir",
        ),
        Command(
            ("get-image-run-dir", "getimagerundir"),
            "ID",
            "print its directory for files that need not survive a reboot",
            "directories:image_run_dir",
        ),
        Command(
            ("delete-image", "deleteimage"),
            "ID...",
            "delete images, their mapped copies and the layers nobody else needs",
            "images:delete_image",
            (Flag(("-t", "--test"), "only print what would be deleted"), JSON),
        ),
        Command(
            ("warm",),
            "IMAGE",
            "make the copy that containers with an ID map need, ahead of the first one",
            "mapped:warm",
            (*MAPS, STRATEGY, JSON),
            "hostspec warm debian --uidmap 0:100000:65536",
            flags_anywhere=True,
        ),
        Command(
            ("mapped",),
            "",
            "list the copies made for ID maps, or remove those that nothing uses",
            "mapped:mapped",
            (
                Flag(("--remove-unused-for",), "remove those unused for so long: 7d, 12h, 0", "TIME"),
                Flag(("-t", "--test"), "only print what would be removed"),
                JSON,
            ),
            "hostspec mapped --remove-unused-for 7d",
        ),
    ),
    "Running": (
        Command(
            ("run",),
            "IMAGE [COMMAND...]",
            "run a command in a new container",
            "run:run",
            RUN,
            "hostspec run --rm --userns auto debian cat /proc/self/uid_map",
            usage_exit_code=NEVER_RAN,
        ),
        Command(
            ("ps",),
            "",
            "list the containers that run",
            "processes:ps",
            (
                Flag(("-a", "--all"), "also those that have ended"),
                QUIET,
                Flag(("--size",), "also what their layers occupy, and may occupy"),
                Flag(("--format",), "print a line of these fields for each, or json", "TEMPLATE"),
                JSON,
            ),
            "hostspec ps --all --format '{{.Names}} {{.Status}}'",
        ),
        Command(
            ("events",),
            "",
            "print the kernel's quota warnings as they happen, naming the containers",
            "events:events",
            (JSON,),
            "hostspec events --json",
        ),
        Command(
            ("exec",),
            "CONTAINER COMMAND...",
            "run a further command in a container",
            "processes:exec_",
            PROCESS,
            "hostspec exec web cat /etc/hostname",
            usage_exit_code=NEVER_RAN,
        ),
        Command(
            ("logs",),
            "CONTAINER",
            "print what a detached container has written",
            "processes:logs",
            (Flag(("-f", "--follow"), "go on until it ends"),),
        ),
        Command(
            ("stop",),
            "CONTAINER...",
            "end containers, by their stop signal or by force",
            "processes:stop_",
            (Flag(("-t", "--time"), "seconds to wait before SIGKILL (default: 10)", "SECONDS"),),
        ),
        Command(
            ("rm",),
            "CONTAINER...",
            "delete containers that have run",
            "processes:rm",
            (Flag(("-f", "--force"), "kill those that run"),),
        ),
    ),
    "Containers": (
        Command(
            ("create-container", "createcontainer"),
            "IMAGE",
            "make a writable layer on an image, under an ID map if you like",
            "containers:create_container",
            (NAME, ID, METADATA, METADATA_FILE, VOLATILE, *MAPS, STRATEGY, EXPLAIN, JSON),
            "hostspec create-container --uidmap 0:100000:65536 debian",
        ),
        Command(
            ("containers",), "", "list containers", "containers:containers", (QUIET, JSON), ignores_more=True
        ),
        Command(("container",), "ID...", "describe containers", "containers:container", (JSON,)),
        Command(
            ("get-container-dir", "getcontainerdir"),
            "ID",
            "print its directory for your own files",
            "directories:container_dir",
            ignores_more=True,
        ),
        Command(
            ("get-container-run-dir", "getcontainerrundir"),
            "ID",
            "print its directory for files that need not survive a reboot",
            "directories:container_run_dir",
            ignores_more=True,
        ),
        Command(
            ("container-parent-owners",),
            "ID...",
            "print who owns the way to its mount and is outside its ID map",
            "directories:container_parent_owners",
            (JSON,),
        ),
        Command(
            ("delete-container", "deletecontainer"),
            "ID...",
            "delete containers and their layers",
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
            (
                Flag(("-r", "--ro", "--read-only"), "read-only; needed for an image"),
                LABEL,
                Flag(("-o", "--opt"), "mount options, separated by commas", "OPTIONS", repeats=True),
                JSON,
            ),
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
            ignores_more=True,
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
                Flag(("-b", "--bz2", "--bzip2"), "compressed with bzip2"),
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
            ("applydiff-using-staging-dir",),
            "LAYER DIR",
            "fill an empty layer with the files of a directory",
            "driver_layers:apply_diff_using_staging_dir",
        ),
        Command(
            ("copy",),
            "SOURCE... TARGET",
            "copy files into a layer or out of one, as [LAYER:]PATH",
            "copying:copy",
            (Flag(("-o", "--chown"), "who shall own the copies, as UID[:GID]", "UID[:GID]"), JSON),
            "hostspec copy --chown 0:0 ./etc web-layer:/etc",
        ),
        Command(
            ("create-storage-layer", "createstoragelayer"),
            "[PARENT]",
            "make an empty layer that only the driver knows",
            "driver_layers:create_storage_layer",
            (ID, READ_ONLY, *MAPS, LABEL, JSON),
        ),
        Command(
            ("storage-layers",),
            "",
            "list the layers that the driver has",
            "driver_layers:storage_layers",
            (JSON,),
        ),
        Command(
            ("layer-parent-owners",),
            "ID...",
            "print who owns the way to a layer's mount and is outside its ID map",
            "directories:layer_parent_owners",
            (JSON,),
        ),
        Command(
            ("delete-layer", "deletelayer"),
            "ID...",
            "delete layers that nothing stands on",
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
        Command(
            ("get-names", "getnames"),
            "ID",
            "print its names",
            "objects:get_names",
            (JSON,),
            ignores_more=True,
        ),
        Command(
            ("add-names", "addnames"),
            "ID",
            "give it more names",
            "objects:add_names",
            (NAME, JSON),
            ignores_more=True,
        ),
        Command(
            ("set-names", "setnames"),
            "ID",
            "give it these names instead",
            "objects:set_names",
            (NAME, JSON),
            ignores_more=True,
        ),
        Command(
            ("remove-names", "removenames"),
            "ID",
            "take names from it",
            "objects:remove_names",
            (NAME, JSON),
            ignores_more=True,
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
    "Data kept with objects": (
        Command(
            ("list-image-data", "listimagedata"),
            "ID",
            "list the items kept with an image",
            "data:list_image_data",
            (JSON,),
        ),
        Command(
            ("get-image-data", "getimagedata"),
            "ID KEY",
            "write an item kept with an image",
            "data:get_image_data",
            (FILE,),
            ignores_more=True,
        ),
        Command(
            ("get-image-data-size", "getimagedatasize"),
            "ID KEY",
            "print its length in bytes",
            "data:get_image_data_size",
            ignores_more=True,
        ),
        Command(
            ("get-image-data-digest", "getimagedatadigest"),
            "ID KEY",
            "print its digest",
            "data:get_image_data_digest",
            ignores_more=True,
        ),
        Command(
            ("set-image-data", "setimagedata"),
            "ID KEY",
            "keep an item with an image",
            "data:set_image_data",
            (FILE,),
            ignores_more=True,
        ),
        Command(
            ("list-container-data", "listcontainerdata"),
            "ID",
            "list the items kept with a container",
            "data:list_container_data",
            (JSON,),
        ),
        Command(
            ("get-container-data", "getcontainerdata"),
            "ID KEY",
            "write an item kept with a container",
            "data:get_container_data",
            (FILE,),
            ignores_more=True,
        ),
        Command(
            ("get-container-data-size", "getcontainerdatasize"),
            "ID KEY",
            "print its length in bytes",
            "data:get_container_data_size",
            ignores_more=True,
        ),
        Command(
            ("get-container-data-digest", "getcontainerdatadigest"),
            "ID KEY",
            "print its digest",
            "data:get_container_data_digest",
            ignores_more=True,
        ),
        Command(
            ("set-container-data", "setcontainerdata"),
            "ID KEY",
            "keep an item with a container",
            "data:set_container_data",
            (FILE,),
            ignores_more=True,
        ),
        Command(
            ("list-layer-data", "listlayerdata"),
            "ID",
            "list the items kept with a layer",
            "data:list_layer_data",
            (JSON,),
        ),
        Command(
            ("get-layer-data", "getlayerdata"),
            "ID KEY",
            "write an item kept with a layer",
            "data:get_layer_data",
            (FILE,),
            ignores_more=True,
        ),
        Command(
            ("set-layer-data", "setlayerdata"),
            "ID KEY",
            "keep an item with a layer",
            "data:set_layer_data",
            (FILE,),
            ignores_more=True,
        ),
    ),
    "The whole store": (
        Command(
            ("check",),
            "",
            "look for damaged layers, images and containers, and remove them if told to",
            "upkeep:check",
            (
                Flag(("-r", "--repair"), "remove damaged images and layers"),
                Flag(("-f", "--force"), "remove damaged containers, too"),
                Flag(("-m", "--max"), "how old a layer without image may be (default: 24h)", "DURATION"),
                Flag(("-q", "--quick"), "leave out what takes longest"),
                JSON,
            ),
            "hostspec check --quick",
        ),
        Command(("df",), "", "print what the store occupies, and what is in use", "space:df", (JSON,)),
        Command(("gc",), "", "remove what no record names", "upkeep:collect_garbage", (JSON,)),
        Command(
            ("dedup",),
            "",
            "let equal files of images share their blocks",
            "upkeep:deduplicate",
            (
                Flag(("--hash-method",), "how to find equal files: crc (default), size or sha256", "METHOD"),
                JSON,
            ),
        ),
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
            "map a root file system with every driver that works here, and print the figures",
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
