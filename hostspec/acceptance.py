"""Which objects are taken for a driver, and which answers for a hook's.

pluggy calls what is marked, and takes a hook that answers nothing for one that declined. So whatever would
do nothing in silence is refused here, by name: a hook that is missing, misspelt or unmarked, one whose call
only makes a generator or a coroutine, one that wraps other implementations where there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import ModuleType

import pluggy

from hostspec.errors import DriverBroken
from hostspec.hookspecs import HOOKS, PROJECT, REQUIRED_HOOKS, GraphDriverSpec
from hostspec.idmap import IdMap
from hostspec.values import Capabilities, DiskUsage, Shifted, Shifting

__all__ = ["ANSWERS", "manager_of"]

ANSWERS: dict[str, type] = {
    "capabilities": Capabilities,
    "create_from_template": IdMap,
    "exists": bool,
    "list_layers": Sequence,
    "reclaim": int,
    "mount": str,
    "status": Sequence,
    "metadata": Sequence,
    "disk_usage": DiskUsage,
    "changes": Iterable,
    "diff": AbstractContextManager,
    "diff_size": int,
    "apply_diff": int,
    "update_idmap": Shifted,
    "supports_shifting": Shifting,
    "dedup": int,
}
"""What each hook that answers something answers."""

_FUNCTIONS_THAT_RUN_LATER = (
    (isgeneratorfunction, "a generator function"),
    (iscoroutinefunction, "a coroutine function"),
    (isasyncgenfunction, "an asynchronous generator function"),
)


def manager_of(name: str, implementation: object, masked: frozenset[str]) -> pluggy.PluginManager:
    """Return a manager that holds this driver alone, after checking that it is one.

    Never two drivers in one manager: the second would be asked what the first declined.

    Args:
        name: The driver's name.
        implementation: What its factory returned.
        masked: Hooks to treat as not implemented.

    Raises:
        DriverBroken: It is no driver; says why.
    """
    if isinstance(implementation, type):
        raise DriverBroken(name, f"its factory returned the class {implementation.__name__}, not an object")
    for hook in HOOKS:
        method = getattr(implementation, hook, None)
        if callable(method) and not hasattr(method, f"{PROJECT}_impl"):
            raise DriverBroken(name, f"its method {hook!r} has the name of a hook but lacks @hookimpl")
    manager = _MaskingManager(implementation, masked)
    manager.add_hookspecs(GraphDriverSpec)
    try:
        manager.register(implementation, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise DriverBroken(name, " ".join(str(error).split())) from error
    answered = manager.get_hookcallers(implementation) or []
    if missing := sorted(REQUIRED_HOOKS - {caller.name for caller in answered}):
        raise DriverBroken(name, f"it lacks the required hooks {', '.join(missing)}")
    for caller in answered:
        for each in caller.get_hookimpls():
            if fault := _fault_of(each, caller):
                raise DriverBroken(name, f"its hook {caller.name!r} {fault}")
    return manager


def _fault_of(hook: pluggy.HookImpl, caller: pluggy.HookCaller) -> str | None:
    """Say why calling this implementation would not do the work, or ``None``."""
    if hook.wrapper or hook.hookwrapper:
        return "is a wrapper, and there is nothing to wrap"
    for runs_later, kind in _FUNCTIONS_THAT_RUN_LATER:
        if runs_later(hook.function):
            return f"is {kind}, which does nothing when it is called"
    passed = caller.spec.argnames if caller.spec else ()
    if kept := [name for name in hook.kwargnames if name in passed]:
        return f"has a default for {', '.join(kept)}; only arguments without one are passed"
    return None


class _MaskingManager(pluggy.PluginManager):
    """A manager that does not see some of the driver's hook implementations.

    Nor does it look for hooks among the special methods, which every object has two dozen of: pluggy looks
    at each name so thoroughly that it shows in the time of a short command.
    """

    def __init__(self, implementation: object, masked: frozenset[str]) -> None:
        super().__init__(PROJECT)
        self._driver = implementation
        self._masked = masked

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        if name.startswith("__") or (plugin is self._driver and name in self._masked):
            return None
        return super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(
        self, module_or_class: ModuleType | type, name: str
    ) -> pluggy.HookspecOpts | None:
        return None if name.startswith("__") else super().parse_hookspec_opts(module_or_class, name)
