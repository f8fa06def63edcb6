"""Checks of a worker before it joins: which study it joins, and if this machine builds the same candidates."""

import time
from collections.abc import Callable, Mapping

from optuna.storages import BaseStorage
from pydantic import ValidationError

from orchestrator.errors import EnvironmentFailure, InputError, PluginError
from orchestrator.plugin.registry import Registry
from orchestrator.study.candidates.device_pool import sleep
from orchestrator.study.distributed.exchange import Exchange, Missing
from orchestrator.study.distributed.heartbeat import beat_of, beat_s
from orchestrator.study.distributed.manifest import Manifest, code_digests, read_manifest
from orchestrator.study.run.directory import CANDIDATE_RECORD
from orchestrator.study.run.request import RUN_STATE, RunState
from orchestrator.values.distribution import installed_version
from orchestrator.values.results import CandidateResult
from orchestrator.values.task import TaskSpec

STATE, BASELINE = "state.json", "baseline.json"
"""Files that the leader leaves in the exchange for workers."""
POLL_S = 2.0


def find_study(
    storage: BaseStorage, name: str | None, *, where: str, wait_s: float, waiting: Callable[[str], None]
) -> tuple[str, Manifest]:
    """Return the study to join with its manifest, as soon as it exists.

    Args:
        storage: The storage to look in.
        name: Of the study; None for the only one that runs. If there are several, the only one whose leader is alive.
        where: The storage, for messages.
        wait_s: Seconds to wait for it.
        waiting: Called once with the reason if the study has to be waited for.

    Raises:
        InputError: It did not appear in time, or there are several.
        Interrupted: The user requested a stop.
    """
    began, reported = time.monotonic(), False
    while True:
        manifests = {
            study.study_name: manifest
            for study in storage.get_all_studies()
            if (manifest := read_manifest(study.user_attrs, study.study_name))
        }
        if name is not None and name in manifests:
            return name, manifests[name]
        running = sorted(key for key, manifest in manifests.items() if manifest.over is None)
        if name is None and len(running) == 1:
            return running[0], manifests[running[0]]
        if name is None and running:
            waiting("a heartbeat, for several searches have not ended")
            if len(led := _led(storage, {key: manifests[key] for key in running})) == 1:
                return led[0], manifests[led[0]]
            raise InputError(f"{where} holds {len(running)} searches; name one with --study: {', '.join(running)}")
        if time.monotonic() - began >= wait_s:
            missing = f"no search '{name}'" if name else "no search that runs"
            others = f"; it holds {', '.join(running)}" if running else "; begin one with orchestrate search --storage ..."
            raise InputError(f"{where} holds {missing}{others}")
        if not reported:
            waiting("a search to begin")
            reported = True
        sleep(min(POLL_S, wait_s))


def _led(storage: BaseStorage, manifests: Mapping[str, Manifest]) -> list[str]:
    """Return the studies whose leaders give a heartbeat within the grace period; a killed leader's study has not ended.

    The wait ends as soon as there are two, or one and no other that could be alive.
    """

    def beats() -> dict[str, int | None]:
        attributes = {study.study_name: study.user_attrs for study in storage.get_all_studies()}
        return {key: beat_of(attributes.get(key, {}), manifest.leader) for key, manifest in manifests.items()}

    before, alive = beats(), set[str]()
    end = time.monotonic() + max(manifest.grace_s for manifest in manifests.values())
    while time.monotonic() < end and len(alive) < min(2, sum(beat is not None for beat in before.values())):
        sleep(min(POLL_S, beat_s(min(manifest.grace_s for manifest in manifests.values()))))
        alive |= {key for key, beat in beats().items() if beat is not None and beat != before[key]}
    return sorted(alive)


def read_state(exchange: Exchange, manifest: Manifest) -> RunState:
    """Return the search that the leader published.

    Raises:
        InputError: The exchange is not the leader's, or another version is installed here.
    """
    if manifest.version != installed_version():
        raise InputError(
            f"the search runs with orchestrate {manifest.version}, and here is {installed_version()}: install the same"
        )
    try:
        state: RunState = RUN_STATE.validate_json(exchange.read(STATE, manifest.state))
    except Missing:
        raise InputError(
            f"the files of the search are not in '{exchange.url}': it must be a place that all machines see; "
            f"give this machine's path to it with --artifacts"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"the search was not begun by this version: {where}: {first['msg']}") from None
    return state


def read_baseline(exchange: Exchange, manifest: Manifest) -> CandidateResult:
    """Return the leader's record of the original.

    Raises:
        EnvironmentFailure: It is not in the exchange.
    """
    try:
        baseline: CandidateResult = CANDIDATE_RECORD.validate_json(exchange.read(BASELINE, manifest.baseline))
    except (Missing, ValidationError):
        raise EnvironmentFailure(f"the original's record is not in '{exchange.url}'") from None
    return baseline


def check_plugins(state: RunState, registry: Registry, here: Mapping[str, str]) -> None:
    """Check that the plugins of this machine are the leader's: all candidates of a study are built by the same code.

    Args:
        state: The search that the leader published.
        registry: The plugins.
        here: Plugins of this machine with their versions.

    Raises:
        PluginError: They differ.
    """
    there, methods = state.request.plugins, registry.methods()
    changed = [f"{name}: {text} there, {here.get(name, 'none')} here" for name, text in there.items() if here.get(name) != text]
    for offer in state.offers:
        if offer.refused is None and (offer.method not in methods or methods[offer.method].version != offer.version):
            own = f"version {methods[offer.method].version}" if offer.method in methods else "none"
            changed.append(f"method {offer.method}: version {offer.version} there, {own} here")
    if changed:
        raise PluginError(f"the plugins are not those of the search ({'; '.join(changed)}); install the same")
    name = state.request.target.runtime
    if name not in registry.runtimes():
        raise PluginError(f"the search builds models for {name}, and no plugin here provides it")


def check_files(manifest: Manifest, task: TaskSpec) -> None:
    """Check that the user's own functions are the leader's.

    Raises:
        InputError: A file is missing or differs.
    """
    try:
        own = code_digests(task)
    except OSError as error:
        raise InputError(
            f"'{error.filename}' is not here: name this machine's own file with --metric, --loss or --student"
        ) from None
    for name, digest in manifest.files.items():
        if own.get(name) != digest:
            raise InputError(f"the file of --{name} is not the one that the search has; copy it from {manifest.host}")
