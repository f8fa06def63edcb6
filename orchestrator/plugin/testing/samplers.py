"""Conformance tests of samplers."""

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import optuna

from orchestrator.plugin.testing.problems import must, wrong

TRIALS = 24


class SamplerTests:
    """Subclass it with your sampler's factory: `class TestMine(SamplerTests): factory = staticmethod(make)`.

    Class attributes:
        factory: `factory(seed)`, as the hook gives it.
    """

    factory: ClassVar[Callable[[int], Any]]

    def test_factory_makes_a_sampler(self) -> None:
        """Of Optuna, a new one at each call."""
        made, other = type(self).factory(0), type(self).factory(0)
        base = optuna.samplers.BaseSampler
        must(isinstance(made, base), f"the factory returned a {type(made).__name__}", "return an optuna.samplers.BaseSampler")
        must(made is not other, "the factory returns the same sampler twice", "make a new one for each search")

    def test_search_with_failures_and_limits_goes_on_and_comes_back(self) -> None:
        """Conditional parameters, two objectives, candidates that failed, were rejected or broke a limit; and again the same."""
        first, again = self._searched(0), self._searched(0)
        must(len(first) == TRIALS, f"the search made {len(first)} of {TRIALS} trials", "answer every question")
        must(first == again, "the same seed asked for other values", "draw everything from the seed")

    def _searched(self, seed: int) -> list[dict[str, Any]]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(directions=["maximize", "minimize"], sampler=type(self).factory(seed))
            asked = []
            for number in range(TRIALS):
                try:
                    trial = study.ask()
                    values = self._ask(trial)
                except Exception as error:  # a plugin's own fault
                    wrong(
                        f"trial {number} cannot be asked for: {type(error).__name__}: {error}",
                        "serve categories, numbers and conditions",
                    )
                asked.append(values)
                cost = 10.0 - 8 * values.get("prune.ratio", 0.0) - 3 * (values["numbers"] == "int8")
                quality = 0.9 - 0.3 * values.get("prune.ratio", 0.0) ** 2 - 0.01 * (values["numbers"] == "int8")
                if number % 5 == 4:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    continue
                trial.set_constraint("min_quality", 0.8 - quality)
                if number % 7 == 6:
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                else:
                    study.tell(trial, [quality, cost])
        return asked

    @staticmethod
    def _ask(trial: optuna.Trial) -> dict[str, Any]:
        found: dict[str, Any] = {"cut": trial.suggest_categorical("cut", ["none", "prune", "shrink"])}
        if found["cut"] == "prune":
            found["prune.ratio"] = trial.suggest_float("prune.ratio", 0.1, 0.7, step=0.1)
            found["prune.rule"] = trial.suggest_categorical("prune.rule", ["a", "b"])
        elif found["cut"] == "shrink":
            found["shrink.blocks"] = trial.suggest_int("shrink.blocks", 1, 4)
        found["numbers"] = trial.suggest_categorical("numbers", ["none", "int8"])
        return found
