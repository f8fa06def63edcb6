"""TensorBoard: a scalar for every value, with the candidates on the horizontal axis in the order in which they were finished."""

from pathlib import Path
from typing import Any

from orchestrator.plugin import CandidateResult, EnvironmentFailure, RunResult, SearchStarted
from orchestrator_events.follower import Follower, figures, recipe


class TensorBoard(Follower):
    """Event files in a folder of the run's name.

    Args:
        folder: Folder for `tensorboard --logdir`.

    Raises:
        EnvironmentFailure: TensorBoard is not installed.
    """

    def __init__(self, folder: str, search: SearchStarted) -> None:
        self._writer = _writer(Path(folder) / Path(search.run).name)
        self._step = search.known
        self._best = 0.0
        if not search.resumed or not search.known:  # a run killed before its first candidate has no such file
            self._write(search.baseline, 0)

    def trial(self, trial: CandidateResult) -> None:
        """Write the scalars of the candidate."""
        self._step += 1
        self._write(trial, self._step)

    def end(self, result: RunResult) -> None:
        """Close the event file."""
        self._scalar("front/size", float(len(result.front)), self._step)
        text = f"recommended: {result.recommended or 'none'}. {result.reason}"
        self._writer.add_summary(_text("recommendation", text), self._step)
        self._writer.close()

    def _write(self, candidate: CandidateResult, step: int) -> None:
        for name, value in figures(candidate).items():
            self._scalar(f"candidate/{name}", value, step)
        self._scalar("candidate/complete", float(candidate.state == "complete"), step)
        self._writer.add_summary(_text("candidate/recipe", f"{candidate.id} ({candidate.state}): {recipe(candidate)}"), step)
        self._writer.flush()

    def _scalar(self, tag: str, value: float, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._writer.add_summary(Summary(value=[Summary.Value(tag=tag, simple_value=value)]), step)


class _Writer:
    """TensorBoard's own event file writer: torch's would load torch into the main process."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventFileWriter(str(folder))

    def add_summary(self, summary: Any, step: int) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event

        self._file.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _writer(folder: Path) -> _Writer:
    try:
        return _Writer(folder)
    except ImportError:
        raise EnvironmentFailure("tensorboard is not installed: pip install tensorboard") from None


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
    return Summary(value=[Summary.Value(tag=tag, metadata=plugin, tensor=tensor)])
