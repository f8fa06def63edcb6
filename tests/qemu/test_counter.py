"""The counting plugin on programs whose counts are known exactly."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator_qemu.qemu import Qemu
from orchestrator_qemu.trace import Trace, read
from tests.qemu import programs as p

LINE = 64
Count = Callable[..., list[Trace]]


@pytest.fixture
def count(qemu: Qemu, counter: Path, tmp_path: Path) -> Count:
    def run(*words: Sequence[int], caches: str = "") -> list[Trace]:
        program = p.write(tmp_path / "program", [word for part in words for word in part])
        out = tmp_path / "trace.bin"
        plugin = f"{counter},out={out}" + (f",caches={caches}" if caches else "")
        done = subprocess.run(
            [*qemu.command, "-cpu", "cortex-a72", "-plugin", plugin, str(program)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return read(out)

    return run


def test_a_loop_is_counted_to_the_instruction(count: Count) -> None:
    [phase] = count(p.begin(), p.loop(1000, [p.add(3, 1)]), p.end(), p.leave())
    assert phase.instructions == 2 + 1000 * 3 + p.MARK_INSTRUCTIONS
    assert max(block.executions for block in phase.blocks) == 999  # the first time goes with what stands before the loop
    assert phase.accesses == 0
    assert phase.misses == ()


def test_blocks_carry_their_words_and_lie_where_the_program_lies(count: Count) -> None:
    [phase] = count(p.begin(), p.loop(50, [p.add(3, 7)]), p.end(), p.leave())
    hot = max(phase.blocks, key=lambda block: block.executions)
    assert hot.words == (p.add(3, 7), p.subtract_and_compare(9), p.branch_if_not_zero(-2))
    assert p.BASE < hot.address < p.BUFFER


def test_phases_are_separate_and_what_stands_before_the_first_is_forgotten(count: Count) -> None:
    phases = count(
        p.loop(5000, [p.add(3, 1)]), p.begin(), p.loop(10, [p.add(3, 1)]), p.end(), p.loop(20, [p.add(3, 1)]), p.end(), p.leave()
    )
    assert [phase.instructions for phase in phases] == [2 + 10 * 3 + p.MARK_INSTRUCTIONS, 2 + 20 * 3 + p.MARK_INSTRUCTIONS]


def test_other_uses_of_prctl_mark_nothing(count: Count) -> None:
    rename = [*p.mov(0, 15), *p.mov(1, p.BUFFER), *p.call(p.PRCTL)]
    [phase] = count(p.begin(), rename, p.end(), p.leave())
    assert phase.instructions == len(rename) + p.MARK_INSTRUCTIONS


@pytest.mark.parametrize(
    ("kilobytes", "passes", "first", "second"),
    [
        (16, 1, 256, 256),  # each line is missed once
        (16, 4, 256, 256),  # and stays
        (64, 3, 3 * 1024, 1024),  # in order through twice its size, the least recently used is what comes next
    ],
)
def test_misses_of_a_buffer_that_is_walked_through(count: Count, kilobytes: int, passes: int, first: int, second: int) -> None:
    lines = kilobytes * 1024 // LINE
    walks = [word for _ in range(passes) for word in p.walk(lines, p.load(1, 10))]
    [phase] = count(p.begin(), walks, p.end(), p.leave(), caches="32:2:1024:16")
    assert phase.accesses == passes * lines
    assert phase.misses == (first, second)


def test_ways_decide_which_lines_share_a_set(count: Count) -> None:
    """Three lines 16 KB apart share a set of a cache of 32 KB: it keeps them with four ways, not with two."""
    twelve_apart = [*p.mov(10, p.BUFFER), *p.mov(11, p.BUFFER + 0x4000), *p.mov(12, p.BUFFER + 0x8000)]
    body = [p.load(1, 10), p.load(1, 11), p.load(1, 12)]
    program = (p.begin(), twelve_apart, p.loop(100, body), p.end(), p.leave())
    [two] = count(*program, caches="32:2")
    assert two.misses == (300,)
    (two_and_four,) = count(*program, caches="32:4")[1:]  # the file goes on
    assert two_and_four.misses == (3,)


def test_a_store_fetches_its_line_like_a_load(count: Count) -> None:
    [phase] = count(p.begin(), p.walk(100, p.store(1, 10)), p.walk(100, p.load(1, 10)), p.end(), p.leave(), caches="32:2:1024:16")
    assert (phase.accesses, phase.misses) == (200, (100, 100))


def test_a_third_level_is_asked_for_what_the_second_missed(count: Count) -> None:
    lines = 128 * 1024 // LINE
    walks = [*p.walk(lines, p.load(1, 10)), *p.walk(lines, p.load(1, 10))]
    [phase] = count(p.begin(), walks, p.end(), p.leave(), caches="32:2:64:8:512:8")
    assert phase.misses == (2 * lines, 2 * lines, lines)


def test_caches_keep_their_lines_from_phase_to_phase_and_begin_empty(count: Count) -> None:
    walk = p.walk(100, p.load(1, 10))
    first, second, third = count(
        walk, p.begin(), walk, p.end(), walk, p.end(), p.begin(), walk, p.end(), p.leave(), caches="32:2:1024:16"
    )
    assert [phase.misses for phase in (first, second, third)] == [(100, 100), (0, 0), (100, 100)]


def test_a_forked_child_writes_its_own_phase(count: Count) -> None:
    fork = [*p.mov(0, 17), *p.mov(1, 0), *p.mov(2, 0), *p.mov(3, 0), *p.mov(4, 0), *p.call(p.CLONE)]
    child = [*p.begin(), *p.loop(30, [p.add(3, 1)]), *p.end(), *p.leave()]
    wait = [*p.mov(0, 0), 0xD1000400, *p.mov(1, 0), *p.mov(2, 0), *p.mov(3, 0), *p.call(p.WAIT4)]  # sub x0, x0, #1: any child
    skip = [p.skip_if_zero(0, len(wait) + 1 + len(p.begin()) + len(p.loop(9, [p.add(3, 1)])) + len(p.end()) + len(p.leave()))]
    parent = [*wait, 0xD503201F, *p.begin(), *p.loop(9, [p.add(3, 1)]), *p.end(), *p.leave()]
    phases = count(fork, skip, parent, child)
    assert [phase.instructions for phase in phases] == [2 + 30 * 3 + p.MARK_INSTRUCTIONS, 2 + 9 * 3 + p.MARK_INSTRUCTIONS]


def test_several_threads_do_no_harm(count: Count) -> None:
    """Two threads walk through one buffer; a second one says that it is done by a store."""
    flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000  # CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM
    clone = [*p.mov(0, flags), *p.mov(1, p.BUFFER + 0xF0000), *p.mov(2, 0), *p.mov(3, 0), *p.mov(4, 0), *p.call(p.CLONE)]
    work = p.walk(2000, p.load(1, 10))
    done = [*p.mov(11, p.BUFFER + 0xFF000), *p.mov(12, 1)]
    thread = [*work, *done, p.store(12, 11), *p.mov(0, 0), *p.call(p.EXIT)]
    await_thread = [*done, p.load(13, 11), p.skip_if_zero(13, -1)]
    main = [*work, *await_thread, *p.end(), *p.leave()]
    [phase] = count(p.begin(), clone, [p.skip_if_zero(0, len(main) + 1)], main, thread, caches="32:2:1024:16")
    assert phase.instructions > 2 * 1999 * 2
    assert phase.accesses >= 2000


@pytest.mark.parametrize("caches", ["32", "none", "32:2:1024:16:64:4:64:4", "33:2", "32:0"])
def test_caches_that_cannot_be_are_refused(qemu: Qemu, counter: Path, tmp_path: Path, caches: str) -> None:
    program = p.write(tmp_path / "program", p.leave())
    done = subprocess.run(
        [*qemu.command, "-plugin", f"{counter},out={tmp_path / 'trace'},caches={caches}", str(program)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert f"cannot use the argument 'caches={caches}'" in done.stderr
