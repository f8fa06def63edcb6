"""Ready-made searches: TOML files that fix budget, sampler and methods."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InputError, ProfileError, unknown
from orchestrator.values.units import parse_bytes, parse_seconds, parse_share


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPreset:
    """One search.

    Attributes:
        trials: Candidates after which the search ends; None: no limit.
        timeout: Budget of the whole command ("4m"); None: no limit.
        candidate_timeout: Time that one candidate's build may take; None: a quarter of the timeout.
        memory: Memory that a build or a measurement may take ("8GB"); None: three quarters of what is free at the start.
        useful_drop: Without a limit on quality, models that lose more than this share of the original's ("5%") are neither looked
            for nor recommended.
        training: Whether methods that train take part.
        early_stopping: Whether candidates are stopped that can no longer reach the front.
        methods: The methods that take part; None: the usual ones of those that are installed; "all": the others too.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 read by pydantic

    schema: Literal[1]
    name: str
    title: str
    sampler: str = "ehvi"
    trials: int | None = None
    timeout: str | None = None
    candidate_timeout: str | None = None
    memory: str | None = None
    useful_drop: str = "5%"
    training: bool = True
    early_stopping: bool = True
    methods: tuple[str, ...] | Literal["all"] | None = None

    @property
    def timeout_s(self) -> float | None:
        """The budget in seconds."""
        return None if self.timeout is None else parse_seconds(self.timeout, f"search '{self.name}': timeout")

    @property
    def candidate_timeout_s(self) -> float | None:
        """One candidate's share in seconds."""
        if self.candidate_timeout is None:
            return None
        return parse_seconds(self.candidate_timeout, f"search '{self.name}': candidate_timeout")

    @property
    def useful_drop_share(self) -> float:
        """The share as a fraction of 1."""
        return parse_share(self.useful_drop, f"search '{self.name}': useful_drop")

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes."""
        return None if self.memory is None else parse_bytes(self.memory, f"search '{self.name}': memory")


_ADAPTER = TypeAdapter(SearchPreset)


def load_preset(reference: str, files: Mapping[str, Path]) -> SearchPreset:
    """Return a search by name or by file.

    Raises:
        InputError: unknown name, unreadable file, unknown key or wrong value, in one line.
    """
    if not reference.endswith(".toml") and reference not in files:
        raise InputError(unknown("search", reference, files) + "; or give a FILE.toml")
    path = files.get(reference, Path(reference))
    try:
        preset: SearchPreset = _ADAPTER.validate_python(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"search file '{path}' cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"search file '{path}' is no valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            raise ProfileError(f"search file '{path}': {unknown('key', key, SearchPreset.__dataclass_fields__)}") from None
        raise ProfileError(f"search file '{path}', key '{key}': {first['msg']}, but got {first.get('input')!r:.60}") from None
    if preset.trials is not None and preset.trials < 1:
        raise ProfileError(f"search file '{path}': trials >= 1 must hold, but got {preset.trials}")
    # Their own errors now, not in the middle.
    _ = preset.timeout_s, preset.candidate_timeout_s, preset.memory_bytes, preset.useful_drop_share
    return preset
