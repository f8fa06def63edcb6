"""Blocks that return a tensor of their input's shape, and their removal. Imports torch; imported on use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.plugin.networks import Forward, Inputs, run


class RemovedBlock(nn.Module):
    """Identity in the place of a removed block.

    Args:
        keyword: Name of the argument with the block's input; None if it is the first positional one.
        extra: Number of None items after the tensor in the tuple that the block returned; None if it returned the tensor.
    """

    def __init__(self, keyword: str | None = None, extra: int | None = None) -> None:
        super().__init__()
        self.keyword, self.extra = keyword, extra

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the input, in the form of the block's output."""
        value = kwargs[self.keyword] if self.keyword else args[0]
        return value if self.extra is None else (value, *[None] * self.extra)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A removable part of a network.

    Attributes:
        name: Its name in the network.
        keyword: Name of the argument with its input, see `RemovedBlock`.
        extra: Form of its output, see `RemovedBlock`.
        deleted: True if it is deleted from its nn.ModuleList instead of replaced, because the network reads its attributes.
    """

    name: str
    keyword: str | None
    extra: int | None
    deleted: bool = False


@dataclass(slots=True)
class _ModuleCall:
    """Input and output of a module in one forward pass; it holds the tensors, so that their identities stay unique."""

    source: Tensor | None
    result: Any
    keyword: str | None
    extra: int | None
    activations: int
    versions: tuple[int, int]
    count: int = 1


def removable_blocks(model: nn.Module, forward: Forward, inputs: Inputs) -> list[Block]:
    """Return the blocks that can be removed one by one, in the network's order.

    A block has parameters and submodules, is called once, and returns a tensor of its first input's shape and type. Of nested
    blocks the outermost is returned, unless it only calls smaller ones in a row (a stage, a whole encoder).
    """
    calls = _module_calls(model, forward, inputs)
    fitting = {name: call for name, call in calls.items() if _fits(model.get_submodule(name), call)}
    chosen: list[str] = []
    for name in fitting:  # from the outermost in, as named_modules lists them
        if any(other.startswith(f"{name}.") for other in fitting) and _is_sequence(name, model, calls):
            continue
        if not any(name.startswith(f"{outer}.") for outer in chosen):
            chosen.append(name)
    reference = [t.shape for t in run(model, forward, inputs)]
    blocks = []
    for name in chosen:
        for deleted in (False, True):
            block = Block(name=name, keyword=fitting[name].keyword, extra=fitting[name].extra, deleted=deleted)
            if _runs_without(model, block, forward, inputs, reference):
                blocks.append(block)
                break
    # If a network reads attributes of one block of a list (nn.TransformerEncoder of its first), it may read those of any.
    read = {_parent(block) for block in blocks if block.deleted}
    return [replace(block, deleted=_parent(block) in read) for block in blocks]


def remove(model: nn.Module, blocks: Sequence[Block]) -> Callable[[], None]:
    """Remove blocks from a network in place; return a function that restores them."""
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
                kept[place] = RemovedBlock(block.keyword, block.extra).train(model.training)
        if any(block.deleted for block in places.values()):
            kept = {str(index): module for index, module in enumerate(kept.values())}
        model.get_submodule(parent)._modules = kept

    def restore() -> None:
        for parent, modules in saved.items():
            model.get_submodule(parent)._modules = modules

    return restore


@contextmanager
def without(model: nn.Module, blocks: Sequence[Block]) -> Iterator[None]:
    """Remove these blocks inside the context."""
    restore = remove(model, blocks)
    try:
        yield
    finally:
        restore()


def _parent(block: Block) -> str:
    return block.name.rpartition(".")[0]


def _runs_without(model: nn.Module, block: Block, forward: Forward, inputs: Inputs, shapes: Sequence[torch.Size]) -> bool:
    if block.deleted and not isinstance(model.get_submodule(_parent(block)), nn.ModuleList):
        return False
    try:
        with without(model, [block]):
            return [t.shape for t in run(model, forward, inputs)] == list(shapes)
    except Exception:  # the user's own forward reads attributes of the block
        return False


def _module_calls(model: nn.Module, forward: Forward, inputs: Inputs) -> dict[str, _ModuleCall]:
    """Return every module's call in one forward pass, the outermost modules first."""
    calls: dict[str, _ModuleCall] = {}
    entered: dict[str, int] = {}

    def enter(name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[name] = _version(_first(args, kwargs)[1])

    def leave(name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        keyword, source = _first(args, kwargs)
        extra = None
        if isinstance(output, tuple) and output and all(item is None for item in output[1:]):
            output, extra = output[0], len(output) - 1
        floats = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.is_floating_point()]
        calls[name] = _ModuleCall(
            source=source,
            result=output,
            keyword=keyword,
            extra=extra,
            activations=sum(source is not None and t.shape == source.shape for t in floats),
            versions=(entered.get(name, 0), _version(output)),
            count=calls[name].count + 1 if name in calls else 1,
        )

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_pre_hook(partial(enter, name), with_kwargs=True))
                hooks.enter_context(module.register_forward_hook(partial(leave, name), with_kwargs=True))
        run(model, forward, inputs)
    return {name: calls[name] for name, _ in model.named_modules() if name in calls}


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str | None, Tensor | None]:
    """Return the first input tensor of a module, and its keyword if it is not the first positional argument."""
    if args:
        return None, args[0] if isinstance(args[0], Tensor) else None
    return next(((key, value) for key, value in kwargs.items() if isinstance(value, Tensor)), (None, None))


def _version(value: Any) -> int:
    """Return the number of in-place changes of a tensor."""
    return value._version if isinstance(value, Tensor) else 0


def _fits(module: nn.Module, call: _ModuleCall) -> bool:
    source, result = call.source, call.result
    if call.count != 1 or not isinstance(source, Tensor) or not isinstance(result, Tensor):
        return False
    alike = result.shape == source.shape and result.dtype == source.dtype and result.is_floating_point()
    return alike and any(True for _ in module.children()) and any(True for _ in module.parameters())


def _is_sequence(name: str, model: nn.Module, calls: Mapping[str, _ModuleCall]) -> bool:
    """Return True if a module only calls its submodules one after the other, with no path around them."""
    if isinstance(model.get_submodule(name), nn.Sequential):
        return True
    inner = [call for other, call in calls.items() if other.startswith(f"{name}.")]
    value, version, start = calls[name].result, calls[name].versions[1], calls[name].source
    for _ in inner:
        if value is start:
            return True
        # The outermost producer; a tensor that was changed in place after it was returned is another value.
        producers = (c for c in inner if c.result is value and c.versions[1] == version and c.source is not value)
        link = next(producers, None)
        if link is None or link.activations != 1:
            return False
        value, version = link.source, link.versions[0]
    return value is start
