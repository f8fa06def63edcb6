"""The order of families in a recipe, computed from what the methods declare."""

import graphlib
from collections.abc import Mapping

from orchestrator.errors import PluginError
from orchestrator.plugin.method import Method, TorchMethod


def families_in_order(methods: Mapping[str, Method]) -> dict[str, tuple[str, ...]]:
    """Return the families with their methods, in an order that satisfies every declaration.

    Methods that give files come after those that give modules.

    Raises:
        PluginError: the declarations contradict each other; names the families of the circle.
    """
    families: dict[str, list[str]] = {}
    for name, method in sorted(methods.items()):
        families.setdefault(method.family, []).append(name)
    on_files = {m.family for m in methods.values() if not isinstance(m, TorchMethod)}
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for family, names in sorted(families.items()):
        earlier = {f for name in names for f in methods[name].after | methods[name].requires if f in families}
        earlier |= {f for f in families for name in families[f] if family in methods[name].before}
        if family in on_files:
            earlier |= families.keys() - on_files
        sorter.add(family, *sorted(earlier - {family}))
    try:
        return {family: tuple(families[family]) for family in sorter.static_order()}
    except graphlib.CycleError as error:
        raise PluginError(f"the methods' declarations of order contradict each other: {' > '.join(error.args[1])}") from None
