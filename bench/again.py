"""The same search twice over one store: what share of the first run's time the second takes, and that both find the same.

python bench/again.py [TARGET ...]

The time is the wall time of the command, but for the end: measuring the front again, and scoring it on the test split and by the
target's kernels, are done anew each time (from the first event after the last candidate to the last one).
"""

import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

TRIALS = "12"


def main() -> None:
    """Print a line for each run, and the ratio."""
    for target in sys.argv[1:] or ["host", "raspberry-pi-4"]:
        with tempfile.TemporaryDirectory() as folder:
            runs = [search(target, Path(folder), f"run{k}") for k in range(2)]
        for which, (whole, end, result) in zip(("first", "again"), runs, strict=True):
            phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["seconds"].items())
            print(f"{target}, {which}: {whole:.1f} s, {end:.1f} of them the end ({phases}); reused {result['search']['reused']}")
        (first, first_end, one), (again, again_end, other) = runs
        share = (again - again_end) / (first - first_end)
        same = outcome(one) == outcome(other)
        verdict = "agree" if same else "DIFFER"
        print(f"{target}: the second takes {share:.1%} of the first; candidates, qualities and files {verdict}")


def search(target: str, folder: Path, name: str) -> tuple[float, float, dict[str, Any]]:
    """(wall seconds, seconds of them at the end, results)."""
    start = time.monotonic()
    command = [sys.executable, "-m", "orchestrator", "search", "--target", target, "--trials", TRIALS]
    command += ["--store", str(folder / "store"), "--output", str(folder / name)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: nothing meets the limits
        sys.exit(done.stderr)
    whole = time.monotonic() - start
    events = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
    last = max(k for k, event in enumerate(events) if event["event"] == "candidate")
    begin, end = (datetime.fromisoformat(events[k]["time"]) for k in (min(last + 1, len(events) - 1), -1))
    result: dict[str, Any] = json.loads((folder / name / "results.json").read_text())
    return whole, (end - begin).total_seconds(), result


def outcome(result: dict[str, Any]) -> list[Any]:
    """What must be the same."""
    return [
        (c["id"], c["state"], (c["artifact"] or {}).get("digest"), (c["quality"] or {}).get("validation"))
        for c in (result["baseline"], *result["candidates"])
    ]


if __name__ == "__main__":
    main()
