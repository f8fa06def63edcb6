"""Carry latency models that were measured on a Zen 4 server core over to the laptop with the same cores.

    orchestrate profiles characterize --output zen4.toml       # on a quiet machine with Zen 4 cores (EPYC 9004)
    python bench/laptop_profile.py zen4.toml

The core is the same, its clock is not: the laptop's moves between 3.3 and 5.1 GHz with heat and load, and its memory is
another. The constants stay as measured, and the band is widened by the span of the clocks, in quadrature of the logarithms.
"""

import argparse
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import tomli_w
from pydantic import TypeAdapter

from orchestrator.hardware.profile_file import check_profile, load_profile
from orchestrator.values.profile import HardwareProfile, LatencyModel

LAPTOP = Path(__file__).parents[1] / "hardware_profiles" / "ryzen-7-7840u.toml"
CLOCKS_GHZ = (3.3, 5.1)
SOURCE = "zen4"
BEGIN, END = "# --- latency models: written by bench/laptop_profile.py ---", "# --- end of latency models ---"


def carried(model: LatencyModel, machine: HardwareProfile) -> LatencyModel:
    """The model with a band that allows for the laptop's clock."""
    span = math.log(CLOCKS_GHZ[1] / CLOCKS_GHZ[0])
    return replace(
        model,
        error=round(math.exp(math.hypot(math.log(model.error), span)), 2),
        mean_error=None,  # that one is the other machine's
        fitted_on=f"a server core of the same kind ({machine.title}), not the laptop; there: {model.fitted_on}",
        source=SOURCE,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="the profile that calibrate wrote")
    measured = load_profile(str(parser.parse_args().measured), {})
    if "avx512_vnni" not in measured.clusters[0].isa:
        sys.exit(f"{measured.title} has no AVX-512 with VNNI: it is no Zen 4")
    models = [carried(model, measured) for model in measured.latency_models]
    tables = TypeAdapter(list[LatencyModel]).dump_python(models, mode="json", exclude_none=True)
    block = f"{BEGIN}\n{tomli_w.dumps({'latency_models': tables})}{END}\n\n"
    text = re.sub(rf"{BEGIN}.*?{END}\n\n", "", LAPTOP.read_text(), flags=re.DOTALL)
    text = re.sub(rf"^{SOURCE} = .*\n", "", text, flags=re.MULTILINE)
    source = f"bench/laptop_profile.py, carried over: {measured.sources[measured.latency_models[0].source]}"
    text = text.replace("choice = ", f"{tomli_w.dumps({SOURCE: source})}choice = ", 1)
    LAPTOP.write_text(text.replace("[limits]\n", f"{block}[limits]\n"))
    for problem in check_profile(LAPTOP):
        print(problem)


if __name__ == "__main__":
    main()
