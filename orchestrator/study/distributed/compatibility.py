"""What a worker looks at before it takes part: which search is meant, and whether this machine makes the same of it."""

import time
from collections.abc import Callable, Mapping

from optuna.storages import BaseStorage
from pydantic import ValidationError

from orchestrator.errors import EnvironmentFailure, InputError, PluginError
from orchestrator.plugin.registry import Registry
from orchestrator.study.candidates.device_pool import rest
from orchestrator.study.distributed.exchange import Exchange, Missing
from orchestrator.study.distributed.heartbeat import beat_of, beat_s
from orchestrator.study.distributed.manifest import Manifest, digests, read_charter
from orchestrator.study.request import RUN_STATE, RunState, SearchRequest
from orchestrator.study.run.directory import CANDIDATE
from orchestrator.values.distribution import installed_version
from orchestrator.values.results import CandidateResult

STATE, BASELINE = "state.json", "baseline.json"
"""What the leader leaves in the exchange for those that join."""
POLL_S = 2.0


def find_search(
    storage: BaseStorage, name: str | None, *, where: str, wait_s: float, waiting: Callable[[str], None]
) -> tuple[str, Manifest]:
    """The search that is meant, as soon as it is there.

    Args:
        name: Of the study; None: the only one that goes on. Where there are several, the only one whose leader is there:
            that is watched for.
        where: The storage in words.
        waiting: Called with the reason, once, where it has to be waited for.

    Raises:
        InputError: it did not come in time, or there are several.
        Interrupted: the user asked to stop.
    """
    begin, told = time.monotonic(), False
    while True:
        studies = {study.study_name: study.user_attrs for study in storage.get_all_studies()}
        found = {key: charter for key, attributes in studies.items() if (charter := read_charter(attributes, key))}
        if name is not None and name in found:
            return name, found[name]
        running = sorted(key for key, charter in found.items() if charter.over is None)
        if name is None and len(running) == 1:
            return running[0], found[running[0]]
        if name is None and running:
            waiting("a sign of life, for several searches seem to go on")
            if len(led := _led(storage, {key: found[key] for key in running})) == 1:
                return led[0], found[led[0]]
            raise InputError(f"{where} holds {len(running)} searches; name one with --study: {', '.join(running)}")
        if time.monotonic() - begin >= wait_s:
            wanted = f"no search '{name}'" if name else "no search that goes on"
            others = f"; it holds {', '.join(running)}" if running else "; begin one with orchestrate search --storage ..."
            raise InputError(f"{where} holds {wanted}{others}")
        if not told:
            waiting("a search to begin")
            told = True
        rest(min(POLL_S, wait_s))


def _led(storage: BaseStorage, found: Mapping[str, Manifest]) -> list[str]:
    """Those whose leaders give a sign of life within the grace period; a search whose leader was killed seems to go on.

    As soon as there are two, or one and no other that could be, nothing more is waited for.
    """

    def beats() -> dict[str, int | None]:
        studies = {study.study_name: study.user_attrs for study in storage.get_all_studies()}
        return {key: beat_of(studies.get(key, {}), charter.leader) for key, charter in found.items()}

    before, living = beats(), set[str]()
    end = time.monotonic() + max(charter.grace_s for charter in found.values())
    while time.monotonic() < end and len(living) < min(2, sum(beat is not None for beat in before.values())):
        rest(min(POLL_S, beat_s(min(charter.grace_s for charter in found.values()))))
        living |= {key for key, beat in beats().items() if beat is not None and beat != before[key]}
    return sorted(living)


def read_state(exchange: Exchange, charter: Manifest) -> RunState:
    """The search as the leader published it.

    Raises:
        InputError: the exchange is not the leader's, or another version is installed here.
    """
    if charter.version != installed_version():
        raise InputError(
            f"the search runs with orchestrate {charter.version}, and here is {installed_version()}: install the same"
        )
    try:
        state: RunState = RUN_STATE.validate_json(exchange.read(STATE, charter.state))
    except Missing:
        raise InputError(
            f"the files of the search are not in '{exchange.url}': it must be a place that all machines see; "
            f"--artifacts says where this machine finds it"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"the search was not begun by this version: {where}: {first['msg']}") from None
    return state


def read_baseline(exchange: Exchange, charter: Manifest) -> CandidateResult:
    """The original as the leader found it.

    Raises:
        EnvironmentFailure: it is not in the exchange.
    """
    try:
        found: CandidateResult = CANDIDATE.validate_json(exchange.read(BASELINE, charter.baseline))
    except (Missing, ValidationError):
        raise EnvironmentFailure(f"the original's record is not in '{exchange.url}'") from None
    return found


def check_plugins(state: RunState, registry: Registry, here: Mapping[str, str]) -> None:
    """Candidates of one search are made by the same code.

    Args:
        here: The plugins of this machine with their versions.

    Raises:
        PluginError: they are others than the leader's; says which.
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
        raise PluginError(f"the search makes models for {name}, and no plugin brings it here")


def code_digests(request: SearchRequest) -> dict[str, str]:
    """Digests of the user's own functions, which have to be the same on every machine.

    Raises:
        OSError: a file is not here.
    """
    task = request.options.task
    return digests({"metric": task.metric, "loss": task.loss, "student": task.student})


def check_files(charter: Manifest, request: SearchRequest) -> None:
    """The user's own functions are the leader's.

    Raises:
        InputError: one is not here, or another.
    """
    try:
        own = code_digests(request)
    except OSError as error:
        raise InputError(
            f"'{error.filename}' is not here: name this machine's own file with --metric, --loss or --student"
        ) from None
    for name, digest in charter.files.items():
        if own.get(name) != digest:
            raise InputError(f"the file of --{name} is not the one that the search has; copy it from {charter.host}")
