"""The simulated CPUs: their identification for the guest, and their caches.

Sources: part numbers and features, Arm Technical Reference Manuals of the cores (MIDR_EL1, ID_AA64ISAR0_EL1), in the
words of Linux's /proc/cpuinfo (Documentation/arch/arm64/elf_hwcaps.rst); cache sizes, the boards that are named here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """One cache level: LRU replacement, lines of 64 bytes, write-allocate."""

    kilobytes: int
    ways: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    """A simulated CPU.

    Attributes:
        name: As qemu (`-cpu`) and `--device qemu:NAME` have it.
        part, variant, revision: As /proc/cpuinfo has them; runtimes choose kernels by the part.
        features: The line `Features` of /proc/cpuinfo.
        caches: First level (data) first.
        board: The board that the caches are those of, and whose profile is used where none is named.
    """

    name: str
    part: str
    variant: str
    revision: int
    features: str
    caches: tuple[Cache, ...]
    board: str


CPUS = {
    cpu.name: cpu
    for cpu in (
        Cpu(
            name="cortex-a53",
            part="0xd03",
            variant="0x0",
            revision=4,
            features="fp asimd evtstrm crc32 cpuid",
            caches=(Cache(kilobytes=32, ways=4), Cache(kilobytes=512, ways=16)),
            board="raspberry-pi-zero-2-w",
        ),
        Cpu(
            name="cortex-a72",
            part="0xd08",
            variant="0x0",
            revision=3,
            features="fp asimd evtstrm crc32 cpuid",
            caches=(Cache(kilobytes=32, ways=2), Cache(kilobytes=1024, ways=16)),
            board="raspberry-pi-4",
        ),
        Cpu(
            name="cortex-a76",
            part="0xd0b",
            variant="0x4",
            revision=1,
            features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
            caches=(Cache(kilobytes=64, ways=4), Cache(kilobytes=512, ways=8), Cache(kilobytes=2048, ways=16)),
            board="raspberry-pi-5",
        ),
    )
}
"""By name."""
