"""Conformance tests of metrics."""

from typing import Any, ClassVar

import numpy as np

from orchestrator.plugin import InputError, Metric
from orchestrator.plugin.testing.problems import must, wrong
from orchestrator.values.direction import Direction

EXAMPLES, CLASSES = 60, 10  # more than the five of a top-5 metric


class MetricTests:
    """Subclass it with your metric: `class TestMine(MetricTests): metric = Mine()`.

    Change `good` where your outputs and labels are neither classes nor numbers.

    Class attributes:
        metric: What is tested.
    """

    metric: ClassVar[Any]

    def good(self, generator: np.random.Generator) -> tuple[list[Any], Any, list[Any]]:
        """Return perfect outputs, their labels, and the original's outputs; first axis 60 examples.

        By default a classifier of ten classes or, where the metric does not take those, three numbers for each example.
        """
        labels = np.arange(EXAMPLES) % CLASSES
        noise = generator.normal(size=(EXAMPLES, CLASSES)).astype(np.float32)
        logits = np.eye(CLASSES, dtype=np.float32)[labels] * 8 + noise * 0.1
        numbers = generator.normal(size=(EXAMPLES, 3)).astype(np.float32)
        try:
            self.metric.score([logits], labels if self.metric.needs_labels else None, [logits])
        except Exception:  # it wants others; what it says of those is told by the tests
            return [numbers + np.float32(0.01)], numbers, [numbers]
        return [logits], labels, [logits]

    def bad(self, generator: np.random.Generator, good: list[Any]) -> list[Any]:
        """Return worse outputs: the good ones of other examples."""
        return [array[generator.permutation(len(array))] for array in good]

    def _score(self, outputs: list[Any], labels: Any, reference: list[Any]) -> Any:
        metric = self.metric
        given = (labels if metric.needs_labels else None, reference if metric.needs_reference else None)
        try:
            return metric.score(outputs, *given)
        except Exception as error:  # a plugin's own fault
            wrong(
                f"`score` raises {type(error).__name__}: {error}",
                "overwrite `good` in the test where it needs other outputs or labels",
            )

    def test_declaration_is_whole(self) -> None:
        """A name and a direction."""
        must(isinstance(self.metric, Metric), f"`metric` is {self.metric!r:.60}, which is no Metric", "give an instance")
        must(getattr(self.metric, "name", ""), "`name` is missing", "declare `name` in the class")
        ways = tuple(Direction)
        must(self.metric.direction in ways, f"`direction` is {self.metric.direction!r}", f"choose one of {ways}")

    def test_score_is_one_number_for_each_example(self) -> None:
        """Or one for all: finite float64."""
        outputs, labels, reference = self.good(np.random.default_rng(0))
        score = self._score(outputs, labels, reference)
        must(isinstance(score, np.ndarray | np.floating), f"`score` returned a {type(score).__name__}", "return a NumPy array")
        must(
            np.shape(score) in ((len(outputs[0]),), ()),
            f"`score` returned the shape {np.shape(score)} for {len(outputs[0])} examples",
            "return one score for each example, or a single number for all",
        )
        must(score.dtype == np.float64, f"`score` returned {score.dtype}", "return float64: means of thousands need it")
        must(np.isfinite(score).all(), "`score` returned NaN or infinity on good outputs", "guard the division")

    def test_better_outputs_score_better(self) -> None:
        """In the declared direction."""
        generator = np.random.default_rng(0)
        outputs, labels, reference = self.good(generator)
        good = float(np.mean(self._score(outputs, labels, reference)))
        bad = float(np.mean(self._score(self.bad(generator, outputs), labels, reference)))
        better = Direction(self.metric.direction).better(good, bad)
        must(
            better,
            f"good outputs score {good:.4g} and bad ones {bad:.4g}",
            f"`direction` says {self.metric.direction}: is that so?",
        )

    def test_score_depends_on_its_arguments_only(self) -> None:
        """And leaves them as they are."""
        outputs, labels, reference = self.good(np.random.default_rng(0))
        kept = [array.copy() for array in outputs]
        first, again = self._score(outputs, labels, reference), self._score(outputs, labels, reference)
        must(np.array_equal(first, again), "the same outputs score otherwise the second time", "draw nothing by chance")
        must(all(np.array_equal(a, b) for a, b in zip(kept, outputs, strict=True)), "the outputs were changed", "work on a copy")

    def test_an_examples_score_does_not_depend_on_its_place(self) -> None:
        """Intervals are made by drawing examples again."""
        outputs, labels, reference = self.good(np.random.default_rng(0))
        order = np.random.default_rng(1).permutation(len(outputs[0]))
        score = self._score(outputs, labels, reference)
        moved = self._score([a[order] for a in outputs], None if labels is None else labels[order], [a[order] for a in reference])
        same = np.allclose(score[order] if np.ndim(score) else score, moved)
        must(same, "the scores change when the examples stand in another order", "score each example by itself, or all as a set")

    def test_missing_labels_or_reference_are_one_line(self) -> None:
        """`InputError`, not a crash."""
        outputs, labels, reference = self.good(np.random.default_rng(0))
        for needed, what, given in (
            (self.metric.needs_labels, "labels", (None, reference)),
            (self.metric.needs_reference, "the original's outputs", (labels, None)),
        ):
            if not needed:
                continue
            try:
                self.metric.score(outputs, *given)
            except InputError:
                continue
            except Exception as error:  # a plugin's own fault
                wrong(f"without {what} `score` raises {type(error).__name__}", f'raise InputError("... needs {what}")')
            wrong(f"without {what} `score` gives a number", f"raise InputError where {what} are None")
