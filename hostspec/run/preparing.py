"""From an image to a run that only has to be started: container, mount, network, bundle."""

from __future__ import annotations

import json
import os
import re

from hostspec.errors import InvalidRequest, StoreReadOnly
from hostspec.idmap import IdMap
from hostspec.run.accounts import find_account
from hostspec.run.bundle import Bundle, arguments_of
from hostspec.run.cgroups import can_make_cgroups, cgroup_of
from hostspec.run.confinement import CAPABILITIES
from hostspec.run.image_config import ImageConfig, image_config
from hostspec.run.names import make_name_files
from hostspec.run.options import RunOptions, refuse_unless_absolute
from hostspec.run.places import CONFIG, RunPlace
from hostspec.run.records import RunRecord, StorePlace
from hostspec.run.runs import Run, keep_record
from hostspec.run.runtimes import find_runtime
from hostspec.run.seccomp import seccomp_for, system_profile
from hostspec.run.starting import ENTRANCE
from hostspec.store import Container, Store
from hostspec.store.filling import new_id
from hostspec.store.format.timestamps import now

__all__ = ["prepare"]

_HOSTNAME_DIGITS = 12

# As podman has it for names of containers.
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]*"


def prepare(store: Store, image: str, options: RunOptions, *, detached: bool = False) -> Run:
    """Make a container and all that a runtime needs to run it.

    The caller owns the run, and ends it by :meth:`hostspec.run.runs.Run.finish`.
    After an error nothing is left.

    Args:
        store: The store.
        image: Reference to the image.
        options: What is asked for.
        detached: Whether it will run without the caller.

    Raises:
        Unknown: There is no such image.
        Duplicate: The name is taken.
        InvalidRequest: This user is not root, a name has characters that names do not have, there is no
            command or no such user, or something asked for contradicts the rest.
        StoreReadOnly: The store was opened for reading.
        RuntimeFailed: There is no OCI runtime.
    """
    if os.geteuid() != 0:
        raise InvalidRequest("running containers", "takes root")
    if store.read_only:
        raise StoreReadOnly(store.root)
    for each in filter(None, (*options.names, options.hostname)):
        _refuse_unless_a_name(each)
    if options.working_directory:
        refuse_unless_absolute(options.working_directory)
    runtime = find_runtime(options.runtime)
    config = image_config(store, store.image(image))
    command = arguments_of(options, config)
    if not command:
        raise InvalidRequest(f"image {image}", "says no command to run; give one")
    identifier = new_id()
    place = RunPlace.of(store, identifier)
    record = RunRecord(
        container=identifier,
        image=image,
        command=command,
        runtime=runtime,
        store=StorePlace.of(store),
        started=now(),
        remove=options.remove,
        detached=detached,
        cgroup=cgroup_of(identifier) if can_make_cgroups() else "",
        network=options.network,
        stop_signal=config.stop_signal,
    )
    run = Run.own(store, place, record)
    try:
        _Preparation(run, image, options, config).make()
    except BaseException:
        run.finish(None)
        raise
    return run


def _refuse_unless_a_name(text: str) -> None:
    # The others on a network find them in /etc/hosts, which a blank or a line's end would forge.
    if re.fullmatch(_NAME, text) is None:
        raise InvalidRequest(
            f"name {text!r}", "must be letters and digits, and after the first also '_', '.' and '-'"
        )


def _seccomp() -> dict[str, object] | None:
    profile = system_profile()
    if profile is None:
        return None
    here = os.uname()
    return seccomp_for(profile, CAPABILITIES, machine=here.machine, kernel=here.release)


class _Preparation:
    """One run while it is prepared; each step is recorded before it is taken."""

    def __init__(self, run: Run, image: str, options: RunOptions, config: ImageConfig) -> None:
        self._run = run
        self._image = image
        self._options = options
        self._config = config

    def make(self) -> None:
        container = self._container()
        if not self._options.remove:
            keep_record(self._run.store, container, self._run.record)
        self._run.record_as(mounted=True)
        root = self._run.store.mount(container.id)
        self._run.record_as(entrance_to=root if container.idmap else "")
        hostname = self._hostname(container)
        files = make_name_files(self._run.place.directory, self._options.network, hostname, container.idmap)
        hooks = self._network((hostname, *container.names))
        bundle = Bundle(
            root=ENTRANCE if container.idmap else root,
            options=self._options,
            config=self._config,
            account=find_account(root, self._options.user or self._config.user),
            idmap=container.idmap,
            hostname=hostname,
            cgroup=self._run.record.cgroup,
            files=files,
            seccomp=_seccomp(),
            hooks=hooks,
        )
        with open(self._run.place.file(CONFIG), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(json.dumps(bundle.document(), ensure_ascii=False))

    def _hostname(self, container: Container) -> str:
        if self._options.hostname:
            return self._options.hostname
        if self._options.network == "host":
            return os.uname().nodename  # what others on the network know it by
        return container.id[:_HOSTNAME_DIGITS]

    def _network(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """Return the hooks by which the container gets its network."""
        if self._options.network != "private":
            return ()
        from hostspec.run.leases import Bridge  # noqa: PLC0415 - few containers have one
        from hostspec.run.network import hook, lease_address  # noqa: PLC0415

        place, subnet = self._run.place, Bridge.of(self._options.subnet).subnet
        self._run.record_as(subnet=subnet)
        self._run.record_as(address=lease_address(place, subnet, names).address)
        return (hook(place, subnet),)

    def _container(self) -> Container:
        if not self._options.automatic_map:
            return self._container_with(self._options.idmap)
        with self._run.store.automatic_idmap(self._image) as idmap:
            return self._container_with(idmap)

    def _container_with(self, idmap: IdMap | None) -> Container:
        options = self._options
        return self._run.store.create_container(
            self._image,
            container_id=self._run.place.container,
            names=options.names,
            idmap=idmap,
            strategy=options.idmap_strategy,
            volatile=options.remove,
            storage_options=options.storage_options,
            squash=options.squash,
            progress=options.progress,
        )
