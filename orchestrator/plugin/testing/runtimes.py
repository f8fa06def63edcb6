"""Conformance tests of runtimes."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from orchestrator.plugin import Refused, Runtime
from orchestrator.plugin.testing.cases import NETWORKS, make_case
from orchestrator.plugin.testing.problems import last_line, must, python, wrong

RUN = """
import json, sys
import numpy as np
source, path, threads, options, inputs, outputs = sys.argv[1:]
namespace = {}
exec(compile(open(source).read(), "<runtime>", "exec"), namespace)
run = namespace["load"](path, int(threads), json.loads(options))
found = []
with np.load(inputs) as arrays:
    batches = {}
    for key in arrays.files:
        number, _, name = key.partition(":")
        batches.setdefault(number, {})[name] = arrays[key]
for number, batch in batches.items():
    got = run(batch)
    assert isinstance(got, (list, tuple)), f"`run` returned a {type(got).__name__}, and must return a list of arrays"
    found += [(f"{number}:{k}", np.asarray(array)) for k, array in enumerate(got)]
np.savez(outputs, **dict(found))
assert not any(name.split(".")[0] == "orchestrator" for name in sys.modules), "`load` imports orchestrator"
"""
"""What a device does with the source text of `load`, in a process that knows nothing of the orchestrator."""


class RuntimeTests:
    """Subclass it with your runtime: `class TestMine(RuntimeTests): runtime = Mine()`.

    Class attributes:
        runtime: What is tested.
        options: Session options that the runtime understands.
        tolerance: Of its outputs against the network's own, as a share of the largest.
        leaves_out: Networks of the kit that the runtime cannot run, with the reason.
    """

    runtime: ClassVar[Any]
    options: ClassVar[dict[str, Any]] = {}
    tolerance: ClassVar[float] = 2e-3
    leaves_out: ClassVar[dict[str, str]] = {}

    def networks(self) -> Sequence[str]:
        """Return the networks that the runtime is tested on."""
        return [name for name in NETWORKS if name not in self.leaves_out]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each network."""
        if "network" in metafunc.fixturenames:
            metafunc.parametrize("network", self.networks())

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        try:
            self.runtime.version()
        except Refused as reason:
            pytest.skip(str(reason))

    def test_declaration_is_whole(self) -> None:
        """Name, suffix, version, modules."""
        runtime = self.runtime
        must(isinstance(runtime, Runtime), f"`runtime` is {runtime!r:.60}, which is no Runtime", "give an instance")
        must(runtime.suffix.startswith("."), f"`suffix` is {runtime.suffix!r}", "begin it with a full stop")
        version = runtime.version()
        must(isinstance(version, str) and version, f"`version()` gives {version!r}", "return the installed version as text")
        for name in runtime.imports:
            try:
                importlib.import_module(name)
            except ImportError as error:
                wrong(f"`imports` names {name}, which cannot be imported: {error}", "name the modules that `load` imports")

    def test_source_stands_alone(self) -> None:
        """`load` travels as text: it compiles, and defines `load`."""
        try:
            namespace: dict[str, Any] = {}
            exec(compile(self.runtime.source(), "<runtime>", "exec"), namespace)  # noqa: S102 the plugin's own code
        except Exception as error:  # it may be any text
            wrong(f"the source text of `load` cannot be executed by itself: {error}", "import what it needs inside its body")
        must(callable(namespace.get("load")), "the source text defines no `load`", "write it as a static method named `load`")

    def test_outputs_are_the_networks(self, network: str, tmp_path: Path) -> None:
        """In a fresh process, by names, with one example and with five, on one thread and on two."""
        case = make_case(network)
        file = self.runtime.convert(case.export(tmp_path, case.copy()), tmp_path)
        must(file.is_file(), f"`convert` returned '{file}', which is no file", "return the file that it wrote")
        must(
            file.suffix == self.runtime.suffix,
            f"`convert` made '{file.name}'",
            f"`suffix` says {self.runtime.suffix}: make them one",
        )
        expected = case.outputs(case.model, 5).numpy()
        for threads in (1, 2):
            got = self._run(
                file, threads, [{n: a[:1] for n, a in case.inputs.items()}, {n: a[:5] for n, a in case.inputs.items()}], tmp_path
            )
            for number, count in (("0", 1), ("1", 5)):
                found = got[f"{number}:0"]
                must(
                    found.shape == expected[:count].shape,
                    f"of {count} examples it gives an output of shape {found.shape}, not {expected[:count].shape}",
                    "the first axis holds the examples, and its length changes between calls",
                )
                worst = float(np.abs(found - expected[:count]).max() / np.abs(expected).max())
                must(
                    worst <= self.tolerance,
                    f"its outputs differ from the network's by {worst:.2g} of the largest ({threads} threads, {count} examples)",
                    "give inputs by their names, and outputs in the file's order, in float32 throughout",
                )

    def test_two_sessions_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        """The same inputs give the same outputs, whatever ran between."""
        case = make_case(self.networks()[0])
        file = self.runtime.convert(case.export(tmp_path, case.copy()), tmp_path)
        first, second = ({n: a[k : k + 2] for n, a in case.inputs.items()} for k in (0, 2))
        got = self._run(file, 1, [first, second, first], tmp_path)
        same = np.array_equal(got["0:0"], got["2:0"])
        must(
            same, "the same inputs gave other outputs after another call", "return copies: the runtime may use its buffers again"
        )

    def test_damaged_file_is_an_error(self, tmp_path: Path) -> None:
        """A file that is no model raises in `load`; the candidate fails, with the reason."""
        path = tmp_path / f"damaged{self.runtime.suffix}"
        path.write_bytes(b"no model at all")
        inputs = tmp_path / "inputs.npz"
        _save(inputs, {"0:x": np.zeros((1, 3), np.float32)})
        done = self._started(path, 1, inputs, tmp_path)
        must(done.returncode != 0, "it loads a damaged file without an error", "raise in `load`")
        must(done.returncode > 0, f"it dies of signal {-done.returncode} on a damaged file", "check the file before loading it")

    def _started(self, path: Path, threads: int, inputs: Path, folder: Path) -> Any:
        source = folder / "source.py"
        source.write_text(self.runtime.source(), "utf-8")
        options = json.dumps(self.options)
        return python(RUN, str(source), str(path), str(threads), options, str(inputs), str(folder / "outputs.npz"))

    def _run(self, path: Path, threads: int, batches: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
        inputs = folder / "inputs.npz"
        _save(inputs, {f"{number}:{name}": array for number, batch in enumerate(batches) for name, array in batch.items()})
        done = self._started(path, threads, inputs, folder)
        must(done.returncode == 0, f"it fails in a fresh process: {last_line(done.stderr)}", "run `load` by hand on the file")
        with np.load(folder / "outputs.npz") as found:
            return dict(found)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)
