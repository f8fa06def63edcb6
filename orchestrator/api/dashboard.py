"""optuna-dashboard on the study of a run."""

from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.optuna_storage import guarded, open_storage
from orchestrator.values.distribution import install_command


class _Quiet(WSGIRequestHandler):
    """A request handler that logs nothing, because a page sends several requests a second."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


def serve(path: Path, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the dashboard until the process is interrupted.

    The run's own journal is opened without the run's lock, so that a search in progress is not disturbed.

    Args:
        path: The run directory.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        ready: Called with the address of the study's page, once it is served.

    Raises:
        InputError: `path` is not a run directory or has no study, or optuna-dashboard is not installed.
        EnvironmentFailure: The address cannot be bound, or the study's storage is unreachable.
    """
    if find_spec("optuna_dashboard") is None:
        raise InputError(f"the dashboard needs the package optuna-dashboard: {install_command('dashboard')}")
    from optuna_dashboard import wsgi

    run = RunDirectory.open(path)
    state = run.state()
    url = state.request.options.storage
    if url is None and not run.study.is_file():
        raise InputError(f"'{path}' has no study: {run.study.name} is missing")
    with nullcontext() if url is None else guarded(url):
        storage: BaseStorage = JournalStorage(JournalFileBackend(str(run.study))) if url is None else open_storage(url)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = storage.get_study_id_from_name(state.study)
        except KeyError:
            raise InputError(f"the storage of '{path}' has no study '{state.study}' any more") from None
    try:
        server: WSGIServer = make_server(host, port, wsgi(storage), handler_class=_Quiet)
    except OSError as error:
        said = f"--host {host} --port {port}: {error.strerror}"
        raise EnvironmentFailure(f"{said}; give another port, or 0 for a free one") from None
    with server:
        # In a thread of its own: wsgiref would report an interruption in the middle of a response as an error of that response.
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        ready(f"http://{host}:{server.server_port}/dashboard/studies/{study}")
        try:
            thread.join()
        finally:
            server.shutdown()
