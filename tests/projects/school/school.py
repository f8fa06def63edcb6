import torch

from orchestrator.plugin import Choice, Need, Number, TorchMethod, hookimpl
from orchestrator.plugin.losses import TeacherLoss


class School(TorchMethod):
    name, version, family, summary = "school", 1, "distillation", "Trains too gently to fix anything."
    needs = frozenset({Need.TRAIN})
    parameters = (
        Choice(name="spoil", help="forget everything first", choices=(False, True)),
        Number(name="k", help="nothing", low=0, high=20, step=1, default=0, integer=True),
    )

    def transform(self, model, parameters, context):
        if parameters["spoil"]:
            torch.manual_seed(int(parameters["k"]))
            with torch.no_grad():
                for weights in model.parameters():
                    weights.copy_(torch.randn_like(weights) * 0.01)
        context.train(model, epochs=12, loss=TeacherLoss.of(context), learning_rate=1e-9)
        return model


@hookimpl
def orchestrator_methods():
    return [School()]
