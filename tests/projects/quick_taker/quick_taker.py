from pathlib import Path

from orchestrator.plugin import hookimpl


@hookimpl
def orchestrator_searches():
    return [Path(__file__).parent / "quick.toml"]


@hookimpl
def orchestrator_samplers():
    return {"ehvi": print}
