"""Samplers compared on really evaluated recipes: hypervolume against trials, and what a trial costs.

python bench/samplers.py                       the table, 10 seeds each; about half an hour on two quiet cores, GP the most of it
python bench/samplers.py --samplers random,ehvi --seeds 10-19
python bench/samplers.py --cost                milliseconds a trial at trial 2,000, with the product's storage

The grid is `sampler_grid.jsonl` (`sampler_grid.py` makes it), searched by the product's own loop of questions
(`sampler_replay.py`). The hypervolume is that over accuracy, log latency and log size, as a share of what the whole grid has; the
reference point is the grid's longest latency and largest file, each enlarged by 5 %, and 95 % of the original's accuracy: models
that lose more are of no use to a search without limits, and it is told so (`useful_drop`). With `--whole` no such constraint is
told, and the reference is the grid's lowest accuracy.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import optuna
from sampler_replay import GRID, Grid, Yardstick, search
from scipy.stats import wilcoxon

from orchestrator.building.protocol import OfferReply
from orchestrator.plugin.registry import Registry
from orchestrator.study.run import optuna_study as studies
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.direction import Direction

TRIALS = 200
AT = (32, 80, 200)
USEFUL_DROP = 0.05
COST_AT, COST_TRIALS = 2000, 20

Factory = Callable[[int], optuna.samplers.BaseSampler]


def samplers() -> dict[str, Factory]:
    """The product's by their names, and settings of Optuna's that were tried beside them."""
    tpe, nsga2 = optuna.samplers.TPESampler, optuna.samplers.NSGAIISampler
    return {
        **Registry.discover().samplers(),
        "tpe-univariate": lambda seed: tpe(seed=seed, multivariate=False),
        "tpe-20-first": lambda seed: tpe(seed=seed, multivariate=True, group=True, n_startup_trials=20),
        "tpe-64-candidates": lambda seed: tpe(seed=seed, multivariate=True, group=True, n_ei_candidates=64),
        "nsga2-8": lambda seed: nsga2(seed=seed, population_size=8),
        "nsga2-32": lambda seed: nsga2(seed=seed, population_size=32),
        "nsga2-mutation-0.3": lambda seed: nsga2(seed=seed, population_size=16, mutation_prob=0.3),
    }


@cache
def _grid(path: Path) -> Grid:
    return Grid.read(path)


def _curve(job: tuple[Path, str, int, int | None, bool, int]) -> np.ndarray:
    """One search's hypervolume after each trial."""
    path, name, seed, starters, whole, trials = job
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    warnings.simplefilter("ignore", FutureWarning)
    grid = _grid(path)
    useful_drop = None if whole else USEFUL_DROP
    order = search(grid, samplers()[name], seed=seed, trials=trials, starters=starters, useful_drop=useful_drop)
    return Yardstick(grid=grid, useful_drop=useful_drop).curve(order)


def table(
    path: Path, names: list[str], seeds: list[int], *, starters: int | None, whole: bool, workers: int, trials: int
) -> None:
    """Print one table: medians over the seeds, in brackets the quartiles."""
    begin = "the product's" if starters is None else f"{starters}"
    print(f"\n{begin} starting recipes, seeds {seeds[0]} to {seeds[-1]}, {len(_grid(path).candidates)} points")
    at = [str(k) for k in AT if k <= trials]
    heads = ["sampler, after trials", *at, f"to random's {trials}", "of them within 80", f"p against random at {' / '.join(at)}"]
    print(f"| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|")
    everyone = ["random", *(name for name in names if name != "random")]
    with ProcessPoolExecutor(workers) as pool:
        jobs = [(path, name, seed, starters, whole, trials) for name in everyone for seed in seeds]
        found = pool.map(_curve, jobs)
        control: np.ndarray | None = None
        for name in everyone:
            own = np.array([next(found) for _ in seeds])
            control = own if control is None else control
            if name in names:
                print(_row(name, own, control), flush=True)


def _row(name: str, own: np.ndarray, control: np.ndarray) -> str:
    """A sampler's curves, shape (seeds, trials), against those of random."""
    goal, trials = float(np.median(control[:, -1])), own.shape[1]
    at = [k for k in AT if k <= trials]
    shares = [
        f"{np.median(own[:, k - 1]):.3f} ({np.quantile(own[:, k - 1], 0.25):.3f} to {np.quantile(own[:, k - 1], 0.75):.3f})"
        for k in at
    ]
    reached = np.array([int(np.argmax(row >= goal)) + 1 if (row >= goal).any() else trials + 1 for row in own])
    median = float(np.median(reached))
    when = f"{median:g}" if median <= trials else f"over {trials}"
    sure = "" if name == "random" else " / ".join(f"{_p(own[:, k - 1], control[:, k - 1]):.3f}" for k in at)
    return f"| {name} | {' | '.join(shares)} | {when} | {int((reached <= 80).sum())} of {len(own)} | {sure} |"


def _p(own: np.ndarray, control: np.ndarray) -> float:
    """One-sided Wilcoxon signed-rank test over the seeds: chance that no better than random looks so good."""
    return 1.0 if np.array_equal(own, control) else float(wilcoxon(own, control, alternative="greater").pvalue)


def cost(names: list[str]) -> None:
    """Milliseconds of ask, suggest and tell at trial 2,000 on the usual methods' whole space, in the journal file of a run."""
    methods = {n: m for n, m in Registry.discover().methods().items() if m.usual}
    space = SearchSpace(
        [OfferReply(method=n, version=m.version, family=m.family, parameters=m.parameters) for n, m in methods.items()], methods
    )
    print(f"\n{COST_TRIALS} trials from {COST_AT} on; median (90 %) of wall time, and CPU time of this process")
    print("| sampler | ms a trial | CPU ms |")
    print("|---|---|---|")
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for name in names:
        generator = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder:
            past = optuna.create_study(
                directions=["maximize", "minimize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
            )
            for _ in range(COST_AT):
                _trial(past, space, generator)
            study = studies.open_study(Path(folder) / "study.log", None, samplers()[name](0), Direction.MAXIMIZE, "cost")
            study.add_trials(past.get_trials(deepcopy=False))
            took = []
            for _ in range(COST_TRIALS):
                wall, cpu = time.perf_counter(), time.process_time()
                _trial(study, space, generator)
                took.append((time.perf_counter() - wall, time.process_time() - cpu))
        times = 1000 * np.array(took[2:])  # the first fit models of 2,000 trials from nothing
        print(
            f"| {name} | {np.median(times[:, 0]):.0f} ({np.quantile(times[:, 0], 0.9):.0f}) | {np.median(times[:, 1]):.0f} |",
            flush=True,
        )


def _trial(study: optuna.Study, space: SearchSpace, generator: np.random.Generator) -> None:
    """A trial of an imagined network."""
    trial = study.ask()
    space.suggest(trial)
    share = (
        1 - float(trial.params.get("channel-pruning.ratio", 0.0)) / 2 - float(trial.params.get("block-removal.blocks", 0)) / 20
    )
    number = 0.3 if trial.params.get("quantization", "none") != "none" else 1.0
    quality, noise = 0.6 + 0.3 * share - 0.01 * (number < 1), generator.normal(0, 0.003)
    trial.set_constraint("useful_drop", 0.84 - quality - noise)
    study.tell(trial, (quality + noise, 10 * share * number * float(np.exp(noise)), 1e6 * share * number))


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    """The rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", help="names, commas between; default: the product's", default=None)
    parser.add_argument("--seeds", type=_seeds, default=_seeds("0-9"), metavar="0-9")
    parser.add_argument("--all", action="store_true", help="the other settings of Optuna's samplers too")
    parser.add_argument("--starters", type=int, help="how many starting recipes come first; default: the product's")
    parser.add_argument("--whole", action="store_true", help="no constraint, and the whole range of accuracy")
    parser.add_argument("--cost", action="store_true", help="what a trial costs instead")
    parser.add_argument("--grid", type=Path, default=GRID)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each search, at least 32")
    options = parser.parse_args()
    own = sorted(Registry.discover().samplers(), key=lambda name: (name != "random", name))
    names = options.samplers.split(",") if options.samplers else list(samplers()) if options.all else own
    if unknown := set(names) - samplers().keys():
        parser.error(f"unknown samplers {', '.join(sorted(unknown))}; there are {', '.join(samplers())}")
    if options.cost:
        cost(names)
    else:
        table(
            options.grid,
            names,
            options.seeds,
            starters=options.starters,
            whole=options.whole,
            workers=options.workers,
            trials=options.trials,
        )


if __name__ == "__main__":
    main()
