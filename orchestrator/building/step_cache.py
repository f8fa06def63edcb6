"""The cache of steps: keys of their results, and the results kept under them.

A step has an address: the task, the versions, the key of its input, its method and parameters. The key of its result is the
digest of the address and of the values of the parts that the method declares to read; the next step is given that key.
"""

import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from orchestrator.building.cache_keys import FORM, arithmetic, code_digest, digest_of, needs_of, package_digest, versions
from orchestrator.building.read_values import ReadValues
from orchestrator.building.store import Store
from orchestrator.plugin.method import Method
from orchestrator.values.recipe import Step
from orchestrator.values.results import Rung

ORIGINAL = "original"
UNTRAINED = "untrained"
OWN = ("building", "plugin", "values")
"""Packages of this product that a model's bytes depend on."""
RUNGS: TypeAdapter[Any] = TypeAdapter(tuple[Rung, ...])


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Identity of the user's task in keys, as JSON can hold it.

    Attributes:
        task: The network and the data.
        judge: The metric, with its code.
        classes: Names of the modules of the network's classes, as pickles use them.
    """

    task: Any = None
    judge: Any = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """Course of a step's trainings, whenever they ran.

    Attributes:
        seconds: Duration of all trainings.
    """

    rungs: tuple[Rung, ...]
    seconds: float

    def after(self, before: "Trained | None") -> "Trained":
        """Return the course including the part before an interruption; this part alone if the training began anew."""
        if before is None or any(rung.share == 0 for rung in self.rungs) or not before.rungs:
            return self
        again = {rung.key for rung in self.rungs}
        rungs = (*(rung for rung in before.rungs if rung.key not in again), *self.rungs)
        return Trained(rungs=rungs, seconds=before.seconds + self.seconds)


class StepCache:
    """Cache of step results on one task, for one seed, with these versions.

    Args:
        stores: Read in this order; the first keeps what is small and serves this run, all of them keep everything else.
        values: The values of declared reads in this run.
        trains: False if trainings are skipped here: results of steps that train then have keys of their own.
    """

    def __init__(
        self, stores: Sequence[Store], identity: Identity, values: ReadValues, *, seed: int, trains: bool = True
    ) -> None:
        self._stores, self._identity, self._values, self._trains = stores, identity, values, trains
        self._base = digest_of([FORM, identity.task, versions(), package_digest(*OWN), arithmetic(), seed])
        self._own: set[str] = set()

    @property
    def _lasting(self) -> Sequence[Store]:
        return self._stores[1:]

    # -- keys ---------------------------------------------------------------------------------------------------------

    def address(self, before: str, step: Step, method: Method) -> str:
        """Return the digest of a step and its input, without what the method reads.

        Args:
            step: Method and parameters.
            method: Method of the step.
            before: Key of its input.
        """
        module = type(method).__module__
        code = [code_digest(module), needs_of(module.partition(".")[0])]
        return digest_of([self._base, before, step.as_json(), code])

    def key(self, address: str, reads: frozenset[str]) -> str:
        """Return the key of a result.

        Where trainings are not done, a method that may train has a key of its own, until it is known that it does not.
        """
        key = digest_of([address, self._values.of(reads)])
        shared = self._trains or "train" not in reads or self._get("facts", key) is not None
        return key if shared else digest_of([key, UNTRAINED])

    def finished(self, address: str, reads: frozenset[str], *, trained: bool) -> str:
        """Return the key of a result that has been built; where it was built without a training that is noted."""
        key = digest_of([address, self._values.of(reads)])
        if "train" in reads and not trained and self._get("facts", key) is None:
            self._put("facts", key, UNTRAINED.encode())
        return self.key(address, reads)

    def exported(self, key: str) -> str:
        """Return the key of a network's export."""
        return digest_of([self._base, key, "export"])

    # -- what is small --------------------------------------------------------------------------------------------------

    def value(self, kind: str, key: str) -> Any:
        """Return JSON data that were kept; None if there are none."""
        content = self._get(kind, key)
        return None if content is None else json.loads(content)

    def keep_value(self, kind: str, key: str, value: Any) -> None:
        """Keep data that JSON can hold."""
        self._put(kind, key, json.dumps(value).encode())

    def trained(self, key: str) -> Trained | None:
        """Return the course of a step's trainings by the key of its result; None if it is unknown."""
        kept = self.value("rungs", self._judged(key))
        return None if kept is None else Trained(rungs=RUNGS.validate_python(kept["rungs"]), seconds=kept["seconds"])

    def keep_trained(self, key: str, trained: Trained) -> None:
        """Keep the course of a step's trainings, up to where they were stopped."""
        value = {"rungs": RUNGS.dump_python(trained.rungs, mode="json"), "seconds": trained.seconds}
        self.keep_value("rungs", self._judged(key), value)

    def _judged(self, key: str) -> str:
        return digest_of([key, self._identity.judge])

    def _get(self, kind: str, key: str) -> bytes | None:
        return next((content for store in self._stores if (content := store.get(kind, key)) is not None), None)

    def _put(self, kind: str, key: str, content: bytes) -> None:
        for store in self._stores:
            store.put(kind, key, content)

    # -- networks and files -----------------------------------------------------------------------------------------------

    def network(self, key: str) -> "nn.Module | None":
        """Return a network that was kept; None if there is none that can be read."""
        name = self._pickled(key)
        for store in self._lasting:
            content = store.get("network", name)
            if content is None:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    # A pickle runs code when it is read: the store reads from a folder of this user's alone.
                    loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
            except Exception:  # pickle and what it calls may raise anything: the network is rebuilt
                store.drop("network", name)
                continue
            if isinstance(loaded, nn.Module):
                return loaded
        return None

    def keep_network(self, key: str, module: nn.Module) -> None:
        """Keep a network if it can be pickled (parametrized weights, local functions as hooks and the like cannot)."""
        if not any(store.keeps for store in self._lasting):
            return
        content = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.save(module, content)
        except Exception:  # the network is rebuilt from its recipe
            return
        for store in self._lasting:
            store.put("network", self._pickled(key), content.getvalue())

    def _pickled(self, key: str) -> str:
        return digest_of([key, sorted(self._identity.classes)])

    def file(self, key: str, path: Path) -> bool:
        """Write a kept file to a path; return False if there is none.

        Raises:
            OSError: `path` cannot be written.
        """
        return any(store.fetch("model", key, path) for store in self._lasting)

    def made_here(self, key: str) -> bool:
        """Return True if this process wrote the file under that key."""
        return key in self._own

    def keep_file(self, key: str, path: Path) -> None:
        """Keep a file."""
        self._own.add(key)
        for store in self._lasting:
            store.put_file("model", key, path)
