"""Structured channel pruning over a dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning")."""

import copy
import math
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Number,
    Parameters,
    ParameterValues,
    Refused,
    narrowed,
    number,
    percent,
)
from orchestrator.plugin.training import LEAST_EPOCHS, epochs_share
from orchestrator_pruning.base import PruningMethod, channel_multiple

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.plugin.channel_groups import ChannelGroup

IMPORTANCE = Choice(
    name="importance",
    help="ranking of the channels: first-order Taylor expansion of the loss, norm of the weights, scale of the batch norm, "
    "distance to the other filters, entropy of the activations, or random as a control",
    choices=("taylor", "l2", "l1", "batch-norm-scale", "geometric-median", "activation-entropy", "random"),
)
SEARCHED = ("taylor", "l2", "geometric-median")
"""Importances in the search range; a recipe may name any."""
ROUND_EPOCHS = 1 / 4
"""Epochs of a training between two rounds, as a share of the epochs of a recovery, in the search."""
LEARNING_RATE = 0.001
"""Peak learning rate of the training between two rounds."""


class ChannelPruning(PruningMethod):
    """Removes the least important channels with everything that depends on them (Fang et al. 2023); the result is dense.

    A group of channels is pruned only if its removal equals silencing it, which is tried on the network: residual streams of
    convolutional networks, neurons of linear layers and the inner layers of transformers are pruned; channels that pass through
    attention heads, layer norm or group norm are not. Layers that compute the outputs keep their width.
    """

    name = "channel-pruning"
    version = 3
    reads = frozenset({"target.channel_multiple", "task_loss", "train"})
    summary = "Removes whole channels of least importance along a dependency graph (Fang et al. 2023, DepGraph)."
    parameters: ClassVar[Parameters] = (
        Number(
            name="ratio",
            cheaper="high",
            help="removed share: of the network's multiply-accumulates with scope sensitivity, else of the channels of all "
            "prunable groups; before rounding to the target's channel multiple",
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
            "network (global), or the same share of every layer (uniform)",
            choices=("sensitivity", "global", "uniform"),
        ),
        Choice(
            name="layers",
            help="all groups of channels, or only those inside blocks: residual streams keep their width",
            choices=("all", "inner"),
        ),
        Number(
            name="rounds",
            help="number of steps to the ratio, with a short training towards the original between two of them",
            low=1,
            high=3,
            step=1,
            default=1,
            integer=True,
        ),
        Number(
            name="round_epochs",
            help="passes over the train split between two rounds; may be a fraction",
            only_if=("rounds", 2, 3),
            low=0.25,
            high=0.25,
            step=0.25,
            default=0.25,
            bounds=(LEAST_EPOCHS, 1000),
        ),
        Choice(
            name="round_teacher",
            help="teacher between rounds: the original, or the network before the round, which is closer in size "
            "(Mirzadeh et al. 2020, teacher assistants)",
            choices=("original", "previous"),
            only_if=("rounds", 2, 3),
        ),
    )

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator.plugin.channel_groups import removable_groups
        from orchestrator_pruning import plan, pruner

        groups, ratio, multiple = removable_groups(model, context), number(parameters, "ratio"), channel_multiple(context.target)
        ratios = map(float, ratio.values())
        low = next((r for r in ratios if plan.prunes(groups, plan.uniform(groups, r, multiple))), None)
        if low is None:
            raise Refused(
                f"no layer can lose channels: none of {len(groups)} prunable groups is wider than the target's multiple of "
                f"{multiple} channels, or attention heads or norms couple their channels"
            )
        inner = [group for group in groups if group.inner]
        scopes, high = ["global", "uniform"] if len(groups) > 1 else ["uniform"], ratio.high
        if len(groups) > 1:
            narrowest = inner or groups  # the smaller of the two choices of `layers` limits the ratio
            most = plan.largest_ratio(narrowest, pruner.cost_of(model, narrowest, context), multiple)
            if most > low:
                scopes.insert(0, "sensitivity")
                high = low + int((min(high, most) - low) / ratio.step) * ratio.step
        choices = {p.name: p.values() for p in parameters}
        trains = "train" in context.task.examples and context.epochs[1] >= LEAST_EPOCHS and context.original is not None
        return narrowed(
            parameters,
            ratio={"low": low, "high": round(max(high, low), 6)},
            importance={"choices": tuple(c for c in SEARCHED if c in choices["importance"])},
            scope={"choices": tuple(s for s in scopes if s in choices["scope"])},
            layers={"choices": ("all", "inner") if 0 < len(inner) < len(groups) else ("all",)},
            rounds={"high": 3 if trains else 1},
            round_epochs=epochs_share(context, ROUND_EPOCHS),
            round_teacher={"choices": ("original", "previous") if trains else ("original",)},
        )

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        by = f"by {str(parameters['importance']).replace('-', ' ').capitalize()} importance"
        text = f"channels -{percent(parameters['ratio'])} {by}"
        if parameters["scope"] == "sensitivity":  # the ratio is then one of multiply-accumulates
            text = f"channels removed {by} for {percent(parameters['ratio'])} fewer multiply-accumulates"
        inner = ", inside blocks only" if parameters["layers"] == "inner" else ""
        rounds = f", in {parameters['rounds']} rounds" if parameters["rounds"] != 1 else ""
        return text + inner + rounds

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator.plugin.channel_groups import nearest_width, removable_groups
        from orchestrator_pruning import plan, pruner

        groups, multiple = removable_groups(model, context), channel_multiple(context.target)
        if parameters["layers"] == "inner":
            groups = [group for group in groups if group.inner]
        importance, rounds = str(parameters["importance"]), int(parameters["rounds"])
        final = self._plan(model, groups, parameters, context)
        if not plan.prunes(groups, final):
            raise MethodError(
                f"{self.name}: ratio={parameters['ratio']} removes no channel of this network in multiples of {multiple}; "
                "choose a higher ratio"
            )
        original = {group.root: group.channels for group in groups}
        for index in range(1, rounds + 1):
            widths = final
            if index < rounds:
                exact = {root: n - (n - final[root]) * index / rounds for root, n in original.items()}
                steps = {g.root: nearest_width(g.channels, exact[g.root], plan.step(g, multiple)) for g in groups}
                widths = {root: max(final[root], width) for root, width in steps.items()}
            if not plan.prunes(groups, widths):
                continue
            previous = copy.deepcopy(model) if parameters.get("round_teacher") == "previous" else None
            groups = pruner.prune(model, groups, importance, widths, context)
            if index < rounds:
                self._train(model, float(parameters["round_epochs"]), context, previous)
        return model

    def _plan(
        self, model: "nn.Module", groups: "list[ChannelGroup]", parameters: ParameterValues, context: BuildContext
    ) -> dict[str, int]:
        """Return the final number of channels of each group by its root."""
        from orchestrator.plugin.channel_groups import channel_graph
        from orchestrator_pruning import importance, plan, pruner, sensitivity

        ratio, kind, multiple = float(parameters["ratio"]), str(parameters["importance"]), channel_multiple(context.target)
        if parameters["scope"] == "uniform" or not groups:
            return plan.uniform(groups, ratio, multiple)
        if parameters["scope"] == "global":
            with channel_graph(model, context) as graph:
                return plan.ranked(groups, importance.scores(kind, model, graph, groups, context), ratio, multiple)
        cost = pruner.cost_of(model, groups, context)
        most = plan.largest_ratio(groups, cost, multiple)
        if ratio > most + 1e-6:
            raise MethodError(
                f"{self.name}: ratio <= {math.floor(100 * most) / 100} must hold, the share of this network's "
                f"multiply-accumulates that can be removed, but got ratio={ratio}; choose a lower ratio or another scope"
            )
        return plan.balanced(groups, sensitivity.sensitivities(kind, model, groups, context), cost, ratio, multiple)

    def _train(self, model: "nn.Module", epochs: float, context: BuildContext, teacher: "nn.Module | None") -> None:
        from orchestrator.plugin.losses import TeacherLoss

        if "train" not in context.task.examples:
            raise MethodError(f"{self.name}: rounds > 1 needs a train split; choose rounds=1")
        context.train(model, epochs=epochs, loss=TeacherLoss.of(context, teacher=teacher), learning_rate=LEARNING_RATE)
