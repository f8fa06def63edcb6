"""Profiles: the built-in ones are legal, and every broken one is told in one line that says where and how to fix it."""

from pathlib import Path

import pytest

from orchestrator.errors import ProfileError
from orchestrator.hardware.features import UNITS
from orchestrator.hardware.probe import probe_host
from orchestrator.hardware.profile_file import check_profile, load_profile, resolve_profile
from orchestrator.hardware.profile_rules import broken_laws, unused_sources
from orchestrator.hardware.profile_tables import as_tables, as_text

BUILT_IN = {p.stem: p for p in (Path(__file__).parents[2] / "hardware_profiles").glob("*.toml")}


def message(reference: str, files: dict[str, Path] | None = None) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile(reference, files or {})
    text = str(caught.value)
    assert "\n" not in text
    return text


def broken(folder: Path, text: str) -> str:
    path = folder / "board.toml"
    path.write_text(text)
    return message(str(path)).removeprefix(str(path))


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_profile_keeps_the_schema_when_loaded(name: str) -> None:
    profile = load_profile(name, BUILT_IN)
    assert profile.name == name
    assert profile.limits is not None
    for model in profile.latency_models:
        assert profile.runtime(model.runtime) is not None
        assert model.nanoseconds.keys() == UNITS.keys()


def test_built_in_profiles_cover_edge_mobile_and_gpu_when_listed() -> None:
    assert {load_profile(name, BUILT_IN).kind for name in BUILT_IN} >= {"edge", "mobile", "gpu"}


def test_profile_is_found_when_named_by_alias_or_path() -> None:
    by_name = load_profile("raspberry-pi-4", BUILT_IN)
    assert load_profile("raspberry-pi", BUILT_IN) == by_name
    assert load_profile(str(BUILT_IN["raspberry-pi-4"]), {}) == by_name
    assert by_name.runtime("onnxruntime").threads == 4  # type: ignore[union-attr]


def test_host_is_probed_when_it_is_the_target() -> None:
    assert resolve_profile("host", BUILT_IN).name == "host"
    described = load_profile("nvidia-t4", BUILT_IN)
    assert resolve_profile("host", BUILT_IN, probe=lambda: described) is described


def test_unknown_name_gets_the_nearest_ones_when_misspelt() -> None:
    assert "did you mean raspberry-pi" in message("raspbery-pi", BUILT_IN)
    assert "unknown target 'hosst'; did you mean host?" in message("hosst", BUILT_IN)


def test_two_profiles_are_both_named_when_they_share_an_alias(tmp_path: Path, profile_text: str) -> None:
    (tmp_path / "one.toml").write_text(profile_text)
    (tmp_path / "two.toml").write_text(profile_text.replace('name = "board"', 'name = "other"'))
    files = {"one": tmp_path / "one.toml", "two": tmp_path / "two.toml"}
    assert load_profile("other", files).name == "other"
    text = message("plank", files)
    assert "'plank'" in text
    assert "one.toml" in text
    assert "two.toml" in text


def test_broken_file_stops_nobody_else_when_another_profile_is_asked_for(tmp_path: Path, profile_text: str) -> None:
    (tmp_path / "good.toml").write_text(profile_text)
    (tmp_path / "bad.toml").write_text("name = ")
    files = {"good": tmp_path / "good.toml", "bad": tmp_path / "bad.toml"}
    assert load_profile("board", files).title == "A board"
    assert "not valid TOML" in message("bad", files)


def test_valid_profile_loads_when_nothing_is_broken(tmp_path: Path, profile_text: str) -> None:
    (tmp_path / "board.toml").write_text(profile_text)
    assert load_profile(str(tmp_path / "board.toml"), {}).clusters[0].clock_hz == 1.5e9


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("clock_hz =", "clock_herz =", ":13: clusters[0].clock_herz: unknown key 'clock_herz'; did you mean clock_hz"),
        ("kind =", "knd =", ":4: knd: unknown key 'knd'; did you mean kind?"),
        ("nanoseconds =", "nanosecond =", "latency_models[0].nanosecond: unknown key 'nanosecond'; did you mean nanoseconds"),
        ("pointwise =", "pointwis =", "latency_models[0].nanoseconds.pointwis: unknown feature 'pointwis'; did you mean point"),
        ('source = "sheet"', 'source = "shet"', ":15: clusters[0].source: unknown source 'shet'; did you mean sheet?"),
        ("clock_hz = 1.5e9", "clock_hz = -1.5e9", ":13: clusters[0].clock_hz: must be greater than 0, but got -1500000000.0"),
        ("clock_hz = 1.5e9", "clock_hz = inf", "clusters[0].clock_hz: must be a finite number"),
        ("cores = 4", "cores = 0", "clusters[0].cores: must be greater than or equal to 1, but got 0"),
        ("cores = 4", 'cores = "4"', "clusters[0].cores: must be a valid integer, but got '4'"),
        ("1_000_000", "1e6", "memory.size_bytes: must be a valid integer, but got 1000000.0; write 1000000"),
        ("cores = 4\n", "", ":10: clusters[0].cores: the key 'cores' is missing; add it"),
        ("error = 1.5", "error = 0.5", "latency_models[0].error: must be greater than or equal to 1, but got 0.5"),
        ("pointwise = 1.0", "pointwise = -1.0", "nanoseconds.pointwise: must be greater than or equal to 0, but got -1"),
        ("float32 = 4", "float23 = 4", "did you mean 'float32'?"),
        ('"u8s8"', '"u8u9"', "did you mean 'u8u8'?"),
        ('runtime = "onnxruntime"', 'runtime = "onnxrt"', "latency_models[0].runtime: unknown runtime 'onnxrt'; did you mean"),
        ("threads = 4", "threads = 5", "runtimes[0].threads: threads <= 4, the cores of all clusters, must hold, but got 5"),
        ('int8_schemes = ["u8s8"]\n', "", "int8_schemes must be given exactly when formats list 'int8'"),
        ('["plank"]', '["plank", "plank"]', "aliases: a name must stand once"),
        ('["plank"]', '["host"]', "aliases: 'host' cannot name a profile"),
        ("schema = 1", "schema = 2", ":1: schema: must be 1, but got 2"),
        ('kind = "edge"', 'kind = "edge', ": not valid TOML: Illegal character '\\n' (at line 4"),
    ],
)  # fmt: skip
def test_broken_profile_is_told_in_one_line_when_loaded(
    tmp_path: Path, profile_text: str, old: str, new: str, expected: str
) -> None:
    assert old in profile_text
    assert expected in broken(tmp_path, profile_text.replace(old, new, 1))


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_profile_passes_its_own_check(name: str) -> None:
    assert check_profile(BUILT_IN[name]) == []


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_profile_states_its_machine_in_full(name: str) -> None:
    profile = load_profile(name, BUILT_IN)
    assert all(cluster.clock_hz and cluster.isa for cluster in profile.clusters)
    assert profile.memory.bandwidth_bytes_per_second or profile.memory.peak_bytes_per_second
    assert profile.limits is not None
    assert profile.limits.memory_bytes is not None
    assert all(runtime.channel_multiple for runtime in profile.runtimes)
    assert all(len(text) > 20 for text in profile.sources.values())


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_profile_loads_the_same_when_it_was_written_out(name: str, tmp_path: Path) -> None:
    profile = load_profile(name, BUILT_IN)
    (tmp_path / "copy.toml").write_text(as_text(profile))
    assert load_profile(str(tmp_path / "copy.toml"), {}) == profile


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("clock_hz = 1.5e9", "clock = 1.5e9", ":13: clusters[0].clock: the key 'clock' has no unit; write clock_hz, in hertz"),
        ("clock_hz = 1.5e9", "clock_ghz = 1.5", "clusters[0].clock_ghz: the key 'clock_ghz' is in another unit"),
        ("size_bytes =", "size =", ":18: memory.size: the key 'size' has no unit; write size_bytes, in bytes"),
        ("clock_hz = 1.5e9", "clock_hz = 1.5", ":13: clusters[0].clock_hz: no core runs at 1.5 Hz; if 1.5 GHz are meant"),
        ("clock_hz = 1.5e9", "clock_hz = 1500", "if 1500 MHz are meant, write 1.5e9"),
        ("clock_hz = 1.5e9", "clock_hz = 1500000", "if 1.5e+06 kHz are meant, write 1.5e9"),
        ("cores = 4", "cores = 4\nl2_bytes = 512", "512 bytes are no cache; if 512 KiB are meant, write 524_288"),
        ("cores = 4", "cores = 4\nl2_shared_by = 4", "so l2_bytes must be given too"),
        ("cores = 4", "cores = 4\nl2_bytes = 65536\nl2_shared_by = 8", "l2_shared_by <= cores must hold, but got 8 and 4"),
        ("1_000_000", "512", ":18: memory.size_bytes: 512 bytes are too few; if 512 MiB are meant, write 536_870_912"),
        ("1_000_000", "4", "if 4 GiB are meant, write 4_294_967_296"),
        ("1_000_000", "1_000_000\nbandwidth_bytes_per_second = 5.5", "if 5.5 GB/s are meant, write 5.5e9"),
        ("1_000_000", "1_000_000\nbandwidth_bytes_per_second = 2e9\npeak_bytes_per_second = 1e9", "<= peak_bytes_per_sec"),
        ('sheet = "data sheet"', 'sheet = " "', ":8: sources.sheet: the source 'sheet' is empty; describe where"),
        ('isa = ["neon"]\nsource = "sheet"', 'isa = ["neon"]', ":10: clusters[0].source: these values have no source"),
        ("threads = 4", 'threads = 4\ncluster = "bigg"', "runtimes[0].cluster: unknown cluster 'bigg'; did you mean big?"),
        ("threads = 4", 'threads = 4\nlegal_formats = ["int8"]', "'float32' is among the formats, so it must be legal"),
    ],
)  # fmt: skip
def test_figures_in_another_unit_and_without_source_are_told_when_loaded(
    tmp_path: Path, profile_text: str, old: str, new: str, expected: str
) -> None:
    assert old in profile_text
    assert expected in broken(tmp_path, profile_text.replace(old, new, 1))


def test_every_problem_is_listed_in_order_when_a_file_has_several(tmp_path: Path, profile_text: str) -> None:
    text = profile_text.replace("clock_hz = 1.5e9", "clock = 1.5e9").replace("cores = 4", "cores = -4")
    text = text.replace('sheet = "data sheet"', 'sheet = "data sheet"\nold = "left over"').replace("threads = 4", "thread = 4", 1)
    path = tmp_path / "board.toml"
    path.write_text(text)
    found = check_profile(path)
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in found] == ["9", "13", "14", "22", "24"]
    assert "nothing uses the source 'old'" in found[0]
    assert "cores: must be greater than or equal to 1, but got -4" in found[1]
    assert "the key 'threads' is missing; add it" in found[3]
    assert "unknown key 'thread'; did you mean threads?" in found[4]


def test_unused_source_stops_nobody_but_is_told_when_checked(tmp_path: Path, profile_text: str) -> None:
    path = tmp_path / "board.toml"
    path.write_text(profile_text.replace('sheet = "data sheet"', 'sheet = "data sheet"\nold = "left over"'))
    assert load_profile(str(path), {}).name == "board"
    assert len(check_profile(path)) == 1


def test_second_table_for_the_same_thing_is_told_when_loaded(tmp_path: Path, profile_text: str) -> None:
    model = """
[[latency_models]]
runtime = "onnxruntime"
number_format = "int8"
threads = 1
nanoseconds = { operator = 1.0 }
error = 1.5
fitted_on = "nothing"
source = "sheet"
"""
    assert "stand here twice; keep one" in broken(tmp_path, profile_text + model + model)


def test_missing_file_is_named_when_loaded(tmp_path: Path) -> None:
    assert message(str(tmp_path / "none.toml")).endswith("none.toml: there is no such file")
    (tmp_path / "folder.toml").mkdir()
    assert "cannot be read (Is a directory)" in message(str(tmp_path / "folder.toml"))


def test_file_in_another_encoding_is_told_when_loaded(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes('title = "Gerät"'.encode("latin-1"))
    assert "not UTF-8" in message(str(tmp_path / "latin.toml"))


def test_probed_profile_could_stand_in_a_file_when_its_laws_are_checked() -> None:
    tables = as_tables(probe_host())
    assert not list(broken_laws({**tables, "name": "mine"}))
    assert not list(unused_sources(tables))
