"""Conformance tests of hardware profiles, ready-made searches and ready-made tasks."""

from pathlib import Path
from typing import Any, ClassVar

from orchestrator.building.task import load_task
from orchestrator.errors import OrchestratorError
from orchestrator.hardware.profile_file import check_profile, load_profile
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing.problems import must, wrong
from orchestrator.study.run.presets import load_preset
from orchestrator.values.task import TaskSpec


class ProfileTests:
    """Subclass it with your profile: `class TestBoard(ProfileTests): path = Path(...)`."""

    path: ClassVar[Any]

    def test_profile_is_complete_and_sourced(self) -> None:
        """It keeps the schema and its laws, every figure has a source, and it is named like its file."""
        try:
            problems = check_profile(Path(self.path))
        except OrchestratorError as error:
            problems = [str(error)]
        must(not problems, "\n".join(problems), "see docs/profiles.md; `orchestrate profiles check FILE` says the same")
        name = load_profile(str(self.path), {}).name
        must(
            name == Path(self.path).stem,
            f"the profile is named '{name}', its file '{Path(self.path).name}'",
            "give both one name",
        )


class ReadySearchTests:
    """Subclass it with your search file: `class TestNightly(ReadySearchTests): path = Path(...)`."""

    path: ClassVar[Any]

    def test_search_can_be_loaded_and_names_what_is_there(self) -> None:
        """Its keys are known, it has a budget, and its sampler and methods are installed."""
        registry = Registry.discover()
        try:
            settings = load_preset(str(self.path), {})
        except OrchestratorError as error:
            wrong(str(error), "see docs/searching.md for the keys")
        must(settings.trials is not None or settings.timeout_s is not None, "it has no budget", "give `trials` or `timeout`")
        must(
            settings.sampler in registry.samplers(),
            f"no plugin brings the sampler '{settings.sampler}'",
            "name one that is installed",
        )
        named = settings.methods if isinstance(settings.methods, tuple) else ()
        missing = sorted(set(named) - registry.methods().keys())
        must(not missing, f"no plugin brings the methods {missing}", "name methods that are installed")


class TaskTests:
    """Subclass it with your task: `class TestFlowers(TaskTests): task = TaskSource(...)`."""

    task: ClassVar[Any]

    def test_model_and_data_fit_each_other_and_come_back_the_same(self) -> None:
        """As a search loads them: the model takes the validation inputs, and a second call makes the same weights and data."""
        registry = Registry.discover()
        try:
            first = load_task(TaskSpec(model=self.task.model, data=self.task.data), registry)
        except OrchestratorError as error:
            wrong(f"a search cannot use it: {error}", "fix the factory that the line names")
        again = load_task(TaskSpec(model=self.task.model, data=self.task.data), registry)
        must(
            first.weights_digest == again.weights_digest,
            "a second call of the model factory makes other weights",
            "seed or store them",
        )
        must(
            first.data_digest == again.data_digest, "a second call of the data factory makes other data", "seed whatever is drawn"
        )
        must(
            "train" in first.splits,
            "there is no `train` split: methods that train are not offered",
            "return one, if there are data",
        )
        must(self.task.summary.strip(), "`summary` is empty", "say in a few words what the task is")
