"""Finding and removing blocks that hand on a tensor of the shape they are given. Loads torch: imported lazily."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.plugin.networks import Forward, run


class Passage(nn.Module):
    """Stands where a block was and hands on the tensor that the block was given.

    Args:
        keyword: The argument that holds the tensor where it is not given by position.
        extra: Length of the tuple that the block returned, after the tensor (filled with None); None: the tensor alone.
    """

    def __init__(self, keyword: str | None = None, extra: int | None = None) -> None:
        super().__init__()
        self.keyword, self.extra = keyword, extra

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The first input, in the form in which the block returned its output."""
        passed = named[self.keyword] if self.keyword else inputs[0]
        return passed if self.extra is None else (passed, *[None] * self.extra)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A part of a network that can be left out.

    Attributes:
        name: Its name in the network.
        keyword, extra: How it is called and answers, see `Passage`.
        deleted: Whether it is taken out of its nn.ModuleList, because the network looks into its blocks, instead of replaced.
    """

    name: str
    keyword: str | None
    extra: int | None
    deleted: bool = False


@dataclass(slots=True)
class _Call:
    """What a module was given and gave in one forward pass; the tensors are held so that their identities stay theirs."""

    source: Tensor | None
    result: Any
    keyword: str | None
    extra: int | None
    activations: int
    versions: tuple[int, int]
    count: int = 1


def find(model: nn.Module, forward: Forward, inputs: Mapping[str, Tensor]) -> list[Block]:
    """The blocks that can be removed one by one, in the order of the network.

    A block holds parameters and inner modules, is called once, and returns a tensor of its first input's shape and type.
    Of nested ones the outermost counts, except a mere chain of smaller ones (a stage, a whole encoder), whose links count.
    """
    calls = _record(model, forward, inputs)
    fitting = {name: call for name, call in calls.items() if _fits(model.get_submodule(name), call)}
    chosen: list[str] = []
    for name in fitting:  # from the outside in, as named_modules lists them
        inner = [other for other in fitting if other.startswith(f"{name}.")]
        if inner and _is_chain(name, model, calls):
            continue
        if not any(name.startswith(f"{outer}.") for outer in chosen):
            chosen.append(name)
    reference = [t.shape for t in run(model, forward, inputs)]
    blocks = []
    for name in chosen:
        call = fitting[name]
        for deleted in (False, True):
            block = Block(name=name, keyword=call.keyword, extra=call.extra, deleted=deleted)
            if _works_without(model, block, forward, inputs, reference):
                blocks.append(block)
                break
    # A list that is looked into at one place (nn.TransformerEncoder asks its first layer) may be so at any once that is gone.
    looked = {_parent(block) for block in blocks if block.deleted}
    return [replace(block, deleted=_parent(block) in looked) for block in blocks]


def remove(model: nn.Module, blocks: Sequence[Block]) -> Callable[[], None]:
    """Take blocks out of a network, in place; returns what puts them back."""
    parents = {_parent(block) for block in blocks}
    saved = {parent: dict(model.get_submodule(parent)._modules) for parent in parents}
    for parent in sorted(parents):
        places = {block.name.rpartition(".")[2]: block for block in blocks if _parent(block) == parent}
        kept: dict[str, nn.Module | None] = {}
        for place, module in saved[parent].items():
            block = places.get(place)
            if block is None:
                kept[place] = module
            elif not block.deleted:
                kept[place] = Passage(block.keyword, block.extra).train(model.training)
        if any(block.deleted for block in places.values()):
            kept = {str(index): module for index, module in enumerate(kept.values())}
        _set(model.get_submodule(parent), kept)

    def restore() -> None:
        for parent, modules in saved.items():
            _set(model.get_submodule(parent), modules)

    return restore


@contextmanager
def without(model: nn.Module, blocks: Sequence[Block]) -> Iterator[None]:
    """The network without these blocks, for the time being."""
    restore = remove(model, blocks)
    try:
        yield
    finally:
        restore()


def _parent(block: Block) -> str:
    return block.name.rpartition(".")[0]


def _set(parent: nn.Module, modules: Mapping[str, nn.Module | None]) -> None:
    parent._modules.clear()
    parent._modules.update(modules)


def _works_without(
    model: nn.Module, block: Block, forward: Forward, inputs: Mapping[str, Tensor], shapes: Sequence[torch.Size]
) -> bool:
    if block.deleted and not isinstance(model.get_submodule(_parent(block)), nn.ModuleList):
        return False
    try:
        with without(model, [block]):
            return [t.shape for t in run(model, forward, inputs)] == list(shapes)
    except Exception:  # the user's own forward looks into the block: that is the answer
        return False


def _record(model: nn.Module, forward: Forward, inputs: Mapping[str, Tensor]) -> dict[str, _Call]:
    """Every module's call in one forward pass, from the outside in."""
    calls: dict[str, _Call] = {}
    entered: dict[str, int] = {}

    def enter(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            entered[name] = _version(_first(args, named)[1])

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            keyword, source = _first(args, named)
            extra = None
            if isinstance(output, tuple) and output and all(item is None for item in output[1:]):
                output, extra = output[0], len(output) - 1
            alike = [t for t in (*args, *named.values()) if isinstance(t, Tensor) and t.is_floating_point()]
            calls[name] = _Call(
                source=source,
                result=output,
                keyword=keyword,
                extra=extra,
                activations=sum(source is not None and t.shape == source.shape for t in alike),
                versions=(entered.get(name, 0), _version(output)),
                count=calls[name].count + 1 if name in calls else 1,
            )

        return hook

    handles = []
    try:
        for name, module in model.named_modules():
            if name:
                handles.append(module.register_forward_pre_hook(enter(name), with_kwargs=True))
                handles.append(module.register_forward_hook(leave(name), with_kwargs=True))
        run(model, forward, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: calls[name] for name, _ in model.named_modules() if name in calls}


def _first(args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[str | None, Tensor | None]:
    """The first tensor that a module was given, and its keyword where it was not the first by position."""
    if args:
        return None, args[0] if isinstance(args[0], Tensor) else None
    return next(((key, value) for key, value in named.items() if isinstance(value, Tensor)), (None, None))


def _version(value: Any) -> int:
    """How often a tensor was changed in place."""
    return value._version if isinstance(value, Tensor) else 0


def _fits(module: nn.Module, call: _Call) -> bool:
    given, result = call.source, call.result
    if call.count != 1 or not isinstance(given, Tensor) or not isinstance(result, Tensor):
        return False
    alike = result.shape == given.shape and result.dtype == given.dtype and result.is_floating_point()
    return alike and any(True for _ in module.children()) and any(True for _ in module.parameters())


def _is_chain(name: str, model: nn.Module, calls: Mapping[str, _Call]) -> bool:
    """Whether a module only calls its inner modules one after the other, with no path around them."""
    if isinstance(model.get_submodule(name), nn.Sequential):
        return True
    inner = {other: call for other, call in calls.items() if other.startswith(f"{name}.") and other.count(".")}
    wanted, version, start = calls[name].result, calls[name].versions[1], calls[name].source
    for _ in range(len(inner)):
        if wanted is start:
            return True
        # The outermost producer; a tensor that was changed in place after it left is not its output any more.
        link = next(
            (c for c in inner.values() if c.result is wanted and c.versions[1] == version and c.source is not wanted), None
        )
        if link is None or link.activations != 1:
            return False
        wanted, version = link.source, link.versions[0]
    return wanted is start
