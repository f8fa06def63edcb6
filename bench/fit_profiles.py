"""Fit the latency models of the profiles to published times, and say how far they carry to networks left out.

    python bench/fit_profiles.py --shared ../shared --score            # about ten minutes; keeps bench/latency_left_out.json
    python bench/fit_profiles.py --shared ../shared --write            # the tables in hardware_profiles/ and the prior

The figures: every network is left out on all boards at once (latency_pool.py is the model). How far boards share their
constants is chosen inside each fold, by leaving the other networks out in turn, so it is not chosen on the figures reported.
The features and their expected costs were settled before, by hand, while looking at figures of the same networks left out
(about 60 tables): that part flatters, as it does the reference's figures.
"""

import argparse
from pathlib import Path

import numpy as np
from latency_tables import write_profiles
from left_out_networks import coverage, left_out, read, save
from published_latencies import Published

HERE = Path(__file__).parent
KEPT = HERE / "latency_left_out.json"


def main() -> None:
    """Score, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--score", action="store_true", help="leave each network out and print the table")
    parser.add_argument("--table", action="store_true", help="print the table of the predictions that are kept")
    parser.add_argument("--write", action="store_true", help="fit to all rows; write profiles and prior")
    parser.add_argument("--profiles", type=Path, default=HERE.parent / "hardware_profiles")
    arguments = parser.parse_args()
    boards = arguments.shared / "cases/boards"
    if arguments.score:
        data = Published(boards)
        save(KEPT, data, left_out(data))
    if arguments.score or arguments.table:
        data = Published(boards)
        report(data, read(KEPT, data))
    if arguments.write:
        write_profiles(arguments.shared, arguments.profiles, KEPT)


def report(data: Published, predicted: np.ndarray) -> None:
    """Print each group beside the reference's figures, the means, and how the bands hold."""
    ours, theirs = data.scored(np.exp(predicted) / 1e6), data.reference()
    print(f"{'board':48s} thr prec    n  MAPE  tau  reference")
    for key in data.groups:
        board, threads, precision = key
        row = ours[key]
        reference = theirs[key]["mape"]
        figures = f"{row['n']:3.0f} {row['mape']:5.1f} {row['tau']:5.2f} {reference:6.1f}"
        print(f"{board[:48]:48s} {threads:3d} {precision:5s} {figures}")
    for name, int8 in (("floating point", False), ("int8", True)):
        keys = [key for key in data.groups if (key[2] == "int8") == int8]
        mean, other = (np.mean([table[key]["mape"] for key in keys]) for table in (ours, theirs))
        print(f"mean over {len(keys)} groups, {name}: {mean:.1f} %, reference {other:.1f} %")
    for name, (share, width) in coverage(data, data.rows.times - predicted).items():
        print(f"band, {name}: holds {share:.0%} of the networks left out; high/low {width:.2f} (geometric mean)")


if __name__ == "__main__":
    main()
