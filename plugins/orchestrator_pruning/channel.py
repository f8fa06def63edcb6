"""Structured channel pruning over a dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning")."""

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
    percent,
)
from orchestrator_pruning.surgery import channel_multiple, cost_of, cut, sound_groups

if TYPE_CHECKING:
    from torch import nn

    from orchestrator_pruning.coupled import Group

IMPORTANCE = Choice(
    name="importance",
    help="what ranks the channels: first-order Taylor expansion of the loss, norms of the weights, scales of batch norms, "
    "distance to the other filters, entropy of the activations, or chance as the control",
    choices=("taylor", "l2", "l1", "batch-norm-scale", "geometric-median", "activation-entropy", "random"),
)
SEARCHED = ("taylor", "l2", "geometric-median")
"""Importances that a search tries; a recipe may name any."""
LEAST_EPOCHS = 0.001
ROUND_EPOCHS = 1 / 4
"""The search spends this share of the epochs of a recovery on each training between two rounds."""
LEARNING_RATE = 0.001
"""Of the trainings between rounds."""


class ChannelPruning(TorchMethod):
    """Removes the least important channels, with everything that depends on them; the result is a smaller dense network.

    Only groups of channels whose removal equals silencing them are touched: that is tried on the network itself, so residual
    streams of convolutional networks, neurons of linear layers and the inner layers of transformers are pruned, and what goes
    through attention heads, layer norm or group norm is not. Layers that produce the outputs stay whole.
    """

    name = "channel-pruning"
    version = 3
    family = "pruning"
    summary = "Removes whole channels of least importance along a dependency graph (Fang et al. 2023, DepGraph)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="ratio",
            cheaper="high",
            help="share that is removed: with scope sensitivity of the network's multiply-accumulates, else of the channels of "
            "all groups that can lose any; before rounding to the target's channel multiple",
            low=0.1,
            high=0.7,
            step=0.05,
            default=0.3,
            bounds=(0.01, 0.95),
        ),
        IMPORTANCE,
        Choice(
            name="scope",
            help="more from layers that the output depends on less (sensitivity), the least important channels of the whole "
            "network (global), or the same share from every layer (uniform)",
            choices=("sensitivity", "global", "uniform"),
        ),
        Choice(
            name="layers",
            help="all groups of channels, or those inside blocks only: residual streams stay whole",
            choices=("all", "inner"),
        ),
        Number(
            name="rounds",
            help="the ratio is reached in so many steps, with a short training towards the original between two of them",
            low=1,
            high=3,
            step=1,
            default=1,
            integer=True,
        ),
        Number(
            name="round_epochs",
            help="passes over the train split between two rounds; fractions are served",
            only_if=("rounds", 2, 3),
            low=0.25,
            high=0.25,
            step=0.25,
            default=0.25,
            bounds=(LEAST_EPOCHS, 1000),
        ),
        Choice(
            name="round_teacher",
            help="who teaches between rounds: the original, or the network as it was before the round, which is closer in size "
            "(Mirzadeh et al. 2020, teacher assistants)",
            choices=("original", "previous"),
            only_if=("rounds", 2, 3),
        ),
    )
    after = frozenset({"morphology"})
    before = frozenset({"distillation", "graph", "quantization"})

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_pruning.plan import reach

        try:
            groups = sound_groups(model, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        ratio = next(p for p in parameters if isinstance(p, Number) and p.name == "ratio")
        low = _least_ratio(groups, ratio, channel_multiple(context.target))
        if low is None:
            raise Refused(
                f"no layer can lose channels: of {len(groups)} prunable groups none is wider than the target's multiple of "
                f"{channel_multiple(context.target)} channels, or attention heads or norms bind their channels"
            )
        inner = [group for group in groups if group.inner]
        changes: dict[str, dict[str, object]] = {
            "importance": {"choices": tuple(c for c in SEARCHED if c in _choices(parameters, "importance"))},
            "layers": {"choices": ("all", "inner") if 0 < len(inner) < len(groups) else ("all",)},
            **_rounds(context),
        }
        scopes, high = ["global", "uniform"] if len(groups) > 1 else ["uniform"], ratio.high
        if len(groups) > 1:
            some = inner or groups  # the narrower choice of layers decides
            most = reach(some, cost_of(model, some, context), channel_multiple(context.target))
            if most > low:
                scopes.insert(0, "sensitivity")
                high = low + int((min(high, most) - low) / ratio.step) * ratio.step
        changes["scope"] = {"choices": tuple(s for s in scopes if s in _choices(parameters, "scope"))}
        changes["ratio"] = {"low": low, "high": round(max(high, low), 6)}
        return narrowed(parameters, **changes)

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        by = f"by {str(parameters['importance']).replace('-', ' ').capitalize()} importance"
        what = f"channels -{percent(parameters['ratio'])} {by}"
        if parameters["scope"] == "sensitivity":  # the ratio is then one of multiply-accumulates
            what = f"channels removed {by} for {percent(parameters['ratio'])} fewer multiply-accumulates"
        inner = ", inside blocks only" if parameters["layers"] == "inner" else ""
        rounds = f", in {parameters['rounds']} rounds" if parameters["rounds"] != 1 else ""
        return what + inner + rounds

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator_pruning.plan import kept, step

        groups = sound_groups(model, context)
        if parameters["layers"] == "inner":
            groups = [group for group in groups if group.inner]
        multiple, importance, rounds = channel_multiple(context.target), str(parameters["importance"]), int(parameters["rounds"])
        final = self._plan(model, groups, parameters, context)
        if all(final[group.root] == group.channels for group in groups):
            raise MethodError(
                f"{self.name}: ratio {parameters['ratio']} removes no channel of this network in multiples of {multiple}; "
                "choose a higher ratio"
            )
        whole = {group.root: group.channels for group in groups}
        for index in range(1, rounds + 1):
            stay = final
            if index < rounds:
                wanted = {root: n - (n - final[root]) * index / rounds for root, n in whole.items()}
                stay = {g.root: max(final[g.root], kept(g.channels, wanted[g.root], step(g, multiple))) for g in groups}
            if all(stay[group.root] == group.channels for group in groups):
                continue
            assistant = copy.deepcopy(model) if parameters.get("round_teacher") == "previous" else None
            groups = cut(model, groups, importance, stay, context)
            if index < rounds:
                self._train(model, float(parameters["round_epochs"]), context, assistant)
        return model

    def _plan(
        self, model: "nn.Module", groups: "list[Group]", parameters: Mapping[str, ParameterValue], context: BuildContext
    ) -> dict[str, int]:
        """The channels that stay in each group in the end."""
        from orchestrator_pruning import plan
        from orchestrator_pruning.coupled import Coupling, differentiable
        from orchestrator_pruning.importance import scores
        from orchestrator_pruning.sensitivity import table

        ratio, scope, importance = float(parameters["ratio"]), parameters["scope"], str(parameters["importance"])
        multiple = channel_multiple(context.target)
        if scope == "uniform" or not groups:
            return plan.uniform(groups, ratio, multiple)
        if scope == "global":
            with differentiable(model):
                coupling = Coupling(model, context.forward, context.example)
                return plan.ranked(groups, scores(importance, model, coupling, groups, context), ratio, multiple)
        cost = cost_of(model, groups, context)
        most = plan.reach(groups, cost, multiple)
        if ratio > most + 1e-6:
            raise MethodError(
                f"{self.name}: at most {math.floor(100 * most) / 100} of this network's multiply-accumulates can go, but got "
                f"ratio={ratio}; choose a lower ratio or another scope"
            )
        return plan.balanced(groups, table(importance, model, groups, context), cost, ratio, multiple)

    def _train(self, model: "nn.Module", epochs: float, context: BuildContext, teacher: "nn.Module | None") -> None:
        from orchestrator.plugin.losses import TeacherLoss

        if "train" not in context.task.examples:
            raise MethodError(f"{self.name}: more than one round needs a train split; choose rounds=1")
        context.train(model, epochs=epochs, loss=TeacherLoss.of(context, teacher=teacher), learning_rate=LEARNING_RATE)


def _choices(parameters: tuple[Parameter, ...], name: str) -> tuple[ParameterValue, ...]:
    return next(p.choices for p in parameters if isinstance(p, Choice) and p.name == name)


def _rounds(context: BuildContext) -> dict[str, dict[str, object]]:
    """The rounds and their epochs that the task and the budget allow."""
    epochs = max(round(ROUND_EPOCHS * context.epochs[1], 4), LEAST_EPOCHS)
    trains = "train" in context.task.examples and context.epochs[1] >= LEAST_EPOCHS and context.original is not None
    return {
        "rounds": {"high": 3 if trains else 1},
        "round_epochs": {"low": epochs, "high": epochs, "default": epochs},
        "round_teacher": {"choices": ("original", "previous") if trains else ("original",)},
    }


def _least_ratio(groups: "list[Group]", ratio: Number, multiple: int) -> float | None:
    """The first of the searched ratios that removes something; None: none does."""
    from orchestrator_pruning.plan import uniform

    for index in range(ratio.count()):
        low = round(ratio.low + index * ratio.step, 6)
        stay = uniform(groups, low, multiple)
        if any(stay[group.root] < group.channels for group in groups):
            return low
    return None
