"""How long `orchestrate --help` and `import orchestrator` take, beside an empty Python: medians of interleaved runs.

python bench/startup.py
"""

import statistics
import subprocess
import sys
import time

RUNS = 15
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import orchestrator": [sys.executable, "-c", "import orchestrator"],
    "orchestrate --help": [sys.executable, "-m", "orchestrator", "--help"],
}


def main() -> None:
    """Print a line for each command: median seconds, and how many times an empty Python that is."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - begin)
    empty = statistics.median(seconds["python -c pass"])
    for name, values in seconds.items():
        print(f"{name:22} {statistics.median(values):.3f} s  {statistics.median(values) / empty:.1f} times an empty Python")


if __name__ == "__main__":
    main()
