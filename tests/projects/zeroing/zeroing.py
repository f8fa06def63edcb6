"""A third party's pruning method, written from docs/plugins/orchestrator_methods.md alone."""

from orchestrator.plugin import Method, Number, TorchMethod, hookimpl


class Threshold(TorchMethod):
    """Sets the smallest weights of every matrix and kernel to zero, and keeps them there."""

    name, version, family = "threshold", 1, "thresholding"
    summary = "Zeroes the smallest weights of each layer."
    parameters = (Number(name="share", help="share of the weights that becomes zero", low=0.2, high=0.8, step=0.2, default=0.4),)
    before = frozenset({"distillation", "quantization"})
    keeps = frozenset({"zeros"})

    def transform(self, model, parameters, context):
        import torch

        from orchestrator.plugin.masks import keep_zeros

        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    least = weight.abs().flatten().quantile(parameters["share"])
                    weight[weight.abs() <= least] = 0
        keep_zeros(model)
        return model


class Forgetful(Threshold):
    """The same without a word about its zeros."""

    name, keeps = "forgetful", frozenset()

    def transform(self, model, parameters, context):
        changed = super().transform(model, parameters, context)
        for layer in changed.modules():
            vars(layer).pop("_kept_zeros", None)
        return changed


@hookimpl
def orchestrator_methods() -> list[Method]:
    """Return the method."""
    return [Threshold()]
