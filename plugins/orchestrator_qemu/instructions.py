"""Decoder of A64 instruction words: kind of work, registers read and written, bytes moved.

Decoded by capstone; the kinds are those that the Arm optimization guides give latencies for ("ASIMD FP multiply accumulate",
"Load vector register", ...), as coarse as the pipeline model can tell them apart. Encodings: Arm Architecture Reference Manual
for A-profile (DDI 0487), chapter C4.
"""

import functools
import re
from dataclasses import dataclass
from enum import StrEnum

from capstone import CS_ARCH_ARM64, CS_MODE_ARM, Cs, CsError, CsInsn


class Kind(StrEnum):
    """Classes of work, as they share pipelines and latencies."""

    FLOAT_MULTIPLY_ADD = "float multiply-add"
    FLOAT = "float arithmetic"
    FLOAT_DIVIDE = "float divide"
    CONVERT = "convert"
    DOT = "dot product"
    VECTOR_MULTIPLY = "vector integer multiply"
    REDUCE = "reduce"
    PERMUTE = "permute"
    VECTOR_INTEGER = "vector integer"
    VECTOR_LOAD = "vector load"
    STRUCTURE_LOAD = "structure load"
    VECTOR_STORE = "vector store"
    STRUCTURE_STORE = "structure store"
    PREFETCH = "prefetch"
    LOAD = "load"
    STORE = "store"
    INTEGER = "integer"
    MULTIPLY = "multiply"
    DIVIDE = "divide"
    BRANCH = "branch"
    NOTHING = "no operation"


VECTOR_KINDS = frozenset(
    {
        Kind.FLOAT_MULTIPLY_ADD,
        Kind.FLOAT,
        Kind.FLOAT_DIVIDE,
        Kind.CONVERT,
        Kind.DOT,
        Kind.VECTOR_MULTIPLY,
        Kind.REDUCE,
        Kind.PERMUTE,
        Kind.VECTOR_INTEGER,
    }
)
"""Work on the vector registers, single floats included."""

MEMORY_KINDS = frozenset(
    {
        Kind.VECTOR_LOAD,
        Kind.STRUCTURE_LOAD,
        Kind.VECTOR_STORE,
        Kind.STRUCTURE_STORE,
        Kind.PREFETCH,
        Kind.LOAD,
        Kind.STORE,
    }
)
"""Work of the load and store pipelines. A structure load or store interleaves registers, fills one lane, or all lanes alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """One decoded instruction.

    Attributes:
        mnemonic: "fmla", "ldp", ...; "?" where the word is no instruction that capstone knows: it counts as integer work.
        wide: Whether vectors of 128 bits are worked on (else 64 bits or a single number).
        reads, writes: Registers by name: x0 to x30, x31 (the stack pointer), v0 to v31, "nzcv" (the flags).
        accumulator: The register that a multiply-accumulate adds to; later ones of the same mnemonic get it early.
        transfers: Registers that a load or store moves; 0 for others.
        loaded_bytes, stored_bytes: Of one execution.
        branch_offset: Bytes from this instruction to the target of a direct branch; None: no branch, or to a register.
    """

    mnemonic: str
    kind: Kind
    wide: bool = False
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    accumulator: str | None = None
    transfers: int = 0
    loaded_bytes: int = 0
    stored_bytes: int = 0
    branch_offset: int | None = None


_VECTOR_OPERAND = re.compile(r"\bv\d+\.|\b[qdshb]\d+\b")
_NAMED_REGISTER = re.compile(r"\b(?:[vqdshbxw]\d+|w?sp)\b")
_WIDE_ARRANGEMENTS = (".16b", ".8h", ".4s", ".2d")
_CONDITIONAL_BRANCHES = frozenset({"cbz", "cbnz", "tbz", "tbnz"})
_DIRECT_BRANCHES = _CONDITIONAL_BRANCHES | {"b", "bl"}
_INDIRECT_BRANCHES = frozenset({"br", "blr", "ret"})
_PAIRS = frozenset({"ldp", "stp", "ldnp", "stnp", "ldpsw", "ldxp", "ldaxp", "stxp", "stlxp"})
_REGISTER_BYTES = {"q": 16, "d": 8, "s": 4, "h": 2, "b": 1, "x": 8, "w": 4}
_NARROW_TRANSFER = re.compile(r"^(?:ld|st|cas|swp)\w*?(?P<width>sw|b|h)$")
_STATUS_FIRST = re.compile(r"^stl?xr|^stl?xp")

_FLOAT_MULTIPLY_ADD = frozenset(
    {"fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub", "fmlal", "fmlal2", "fmlsl", "fmlsl2", "bfdot", "bfmmla"}
)
_DOT = frozenset({"sdot", "udot", "usdot", "sudot"})
_ACCUMULATES = re.compile(r"fml[as]l?2?$|[su]{1,2}dot$|[su]ml[as]l|ml[as]$|[su]adalp")
# By the beginning of the mnemonic, the first that fits.
_VECTOR_KINDS = (
    (re.compile(r"[su]ml[as]l|[su]mull|mla|mls|mul$|sqr?dmul|smmla|ummla|pmull"), Kind.VECTOR_MULTIPLY),
    (re.compile(r"[su]adalp|[su]addlp|[su]addlv|addv|[su]maxv|[su]minv|addp|fmaxv|faddp|fminv|fmaxp"), Kind.REDUCE),
    (re.compile(r"fdiv|fsqrt"), Kind.FLOAT_DIVIDE),
    (re.compile(r"fadd|fsub|fmul|fmax|fmin|fabd|fcm|fac|fneg|fabs|fre|frs|frint|fnmul|fccmp"), Kind.FLOAT),
    (re.compile(r"fcvt|scvtf|ucvtf"), Kind.CONVERT),
    (
        re.compile(
            r"zip|uzp|trn|tbl|tbx|ext|rev|dup|ins|mov$|umov|smov|fmov|xtn|sqxtn|uqxtn|sqxtun"
            r"|sxtl|uxtl|shll|sshll|ushll|shrn|sqrshrn|rshrn|sqshrn"
        ),
        Kind.PERMUTE,
    ),
)
_MULTIPLY = re.compile(r"madd|msub|mul|smull|umull|smulh|umulh|smaddl|umaddl|mneg")


@functools.cache
def _decoder() -> Cs:
    """Return Capstone with details of registers and operands."""
    decoder = Cs(CS_ARCH_ARM64, CS_MODE_ARM)
    decoder.detail = True
    return decoder


@functools.lru_cache(maxsize=1 << 18)
def decode(word: int) -> Instruction:
    """Decode a 32-bit word."""
    found = next(_decoder().disasm(word.to_bytes(4, "little"), 0), None)
    if found is None:
        return Instruction(mnemonic="?", kind=Kind.INTEGER)
    mnemonic, operands = str(found.mnemonic), str(found.op_str)
    vector = bool(_VECTOR_OPERAND.search(operands))
    reads, writes = _registers(found, mnemonic, operands)
    wide = vector and _is_wide(operands)
    if _is_branch(mnemonic):
        offset = _branch_offset(operands) if mnemonic not in _INDIRECT_BRANCHES else None
        return Instruction(mnemonic=mnemonic, kind=Kind.BRANCH, wide=wide, reads=reads, writes=writes, branch_offset=offset)
    if (word >> 25) & 0b0101 == 0b0100:  # the group "Loads and Stores" of the top-level encodings
        return _memory(mnemonic, operands, vector=vector, wide=wide, reads=reads, writes=writes)
    if vector:
        # The first operand of a multiply-accumulate is the one that is added to.
        accumulator = _name(found, found.operands[0].reg) if _ACCUMULATES.match(mnemonic) else None
        return Instruction(
            mnemonic=mnemonic, kind=_vector_kind(mnemonic), wide=wide, reads=reads, writes=writes, accumulator=accumulator
        )
    return Instruction(mnemonic=mnemonic, kind=_scalar_kind(mnemonic), reads=reads, writes=writes)


def _is_wide(operands: str) -> bool:
    return any(a in operands for a in _WIDE_ARRANGEMENTS) or operands.startswith("q") or "{" in operands


def _is_branch(mnemonic: str) -> bool:
    return mnemonic.startswith("b.") or mnemonic in _DIRECT_BRANCHES or mnemonic in _INDIRECT_BRANCHES


def _branch_offset(operands: str) -> int:
    """Return the offset of a branch: its target, because the word is decoded at address 0."""
    target = int(operands.rsplit("#", 1)[-1], 0)
    return target - (1 << 64) if target >= 1 << 63 else target


def _vector_kind(mnemonic: str) -> Kind:
    if mnemonic in _FLOAT_MULTIPLY_ADD:
        return Kind.FLOAT_MULTIPLY_ADD
    if mnemonic in _DOT:
        return Kind.DOT
    return next((kind for pattern, kind in _VECTOR_KINDS if pattern.match(mnemonic)), Kind.VECTOR_INTEGER)


def _scalar_kind(mnemonic: str) -> Kind:
    if _MULTIPLY.match(mnemonic):
        return Kind.MULTIPLY
    if mnemonic in ("sdiv", "udiv"):
        return Kind.DIVIDE
    return Kind.NOTHING if mnemonic in ("nop", "hint") else Kind.INTEGER


def _memory(
    mnemonic: str, operands: str, *, vector: bool, wide: bool, reads: frozenset[str], writes: frozenset[str]
) -> Instruction:
    """Decode a load, a store or a prefetch; atomics count as loads."""
    if mnemonic.startswith("prf"):
        return Instruction(mnemonic=mnemonic, kind=Kind.PREFETCH, wide=wide, reads=reads, writes=writes)
    stores = mnemonic.startswith("st")
    if "{" in operands:
        transfers, moved, plain = _structure(mnemonic, operands)
        kinds = (Kind.VECTOR_STORE, Kind.STRUCTURE_STORE) if stores else (Kind.VECTOR_LOAD, Kind.STRUCTURE_LOAD)
        kind = kinds[0] if plain else kinds[1]
    else:
        transfers = 2 if mnemonic in _PAIRS else 1
        moved = transfers * _register_bytes(mnemonic, operands, vector=vector)
        kind = (Kind.VECTOR_STORE if vector else Kind.STORE) if stores else Kind.VECTOR_LOAD if vector else Kind.LOAD
    return Instruction(
        mnemonic=mnemonic,
        kind=kind,
        wide=wide,
        reads=reads,
        writes=writes,
        transfers=transfers,
        loaded_bytes=0 if stores else moved,
        stored_bytes=moved if stores else 0,
    )


def _structure(mnemonic: str, operands: str) -> tuple[int, int, bool]:
    """Return the registers in braces, the bytes moved, and True for plain moves (ld1 and st1 of full registers)."""
    braces = operands[operands.index("{") + 1 : operands.index("}")]
    numbers = [int(n) for n in re.findall(r"v(\d+)", braces)]
    registers = (numbers[1] - numbers[0]) % 32 + 1 if "-" in braces else len(numbers)
    arrangement = re.search(r"\.(\d*)([bhsd])", braces)
    lanes, element = (arrangement[1], _REGISTER_BYTES[arrangement[2]]) if arrangement else ("1", 16)
    one_lane = mnemonic.endswith("r") or re.search(r"\}\s*\[", operands) is not None or not lanes
    moved = registers * element * (1 if one_lane else int(lanes))
    return registers, moved, mnemonic in ("ld1", "st1") and not one_lane


def _register_bytes(mnemonic: str, operands: str, *, vector: bool) -> int:
    """Return the bytes that one register of a load or store moves."""
    named = [o.strip() for o in operands.split(",")]
    register = named[1] if _STATUS_FIRST.match(mnemonic) else named[0]
    narrow = None if vector else _NARROW_TRANSFER.match(mnemonic)
    if narrow is not None:
        return {"sw": 4, "b": 1, "h": 2}[narrow["width"]]
    return _REGISTER_BYTES.get(register[:1], 8)


def _registers(found: CsInsn, mnemonic: str, operands: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the registers read and written.

    Capstone 5 has no account of the half-precision vectors and dot products of Armv8.2, and a wrong one of structure loads
    and stores (it takes the list for one register or two): for these it is read from the operands.
    """
    if "{" in operands and not mnemonic.startswith("tb"):
        return _structure_registers(mnemonic, operands)
    try:
        reads, writes = found.regs_access()
    except CsError:
        reads, writes = [], []
    if not reads and not writes:
        return _operand_registers(mnemonic, operands)
    names = [frozenset(n for n in (_name(found, r) for r in group) if n is not None) for group in (reads, writes)]
    return names[0], names[1]


def _structure_registers(mnemonic: str, operands: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the registers of ld1 to ld4 and st1 to st4; loads of one lane read what they write."""
    braces, _, address = operands.partition("}")
    numbers = [int(n) for n in re.findall(r"v(\d+)", braces)]
    if "-" in braces:
        numbers = [(numbers[0] + k) % 32 for k in range((numbers[1] - numbers[0]) % 32 + 1)]
    listed = frozenset(f"v{n}" for n in numbers)
    inside = address[address.rindex("[") :]
    used = frozenset(_plain(n) for n in _NAMED_REGISTER.findall(inside))
    base = frozenset([_plain(_NAMED_REGISTER.findall(inside)[0])])
    moved = base if inside.rpartition("]")[2].strip() else frozenset[str]()
    if mnemonic.startswith("st"):
        return listed | used, moved
    one_lane = address.strip().startswith("[") and address.count("[") > 1
    return used | (listed if one_lane else frozenset()), listed | moved


def _operand_registers(mnemonic: str, operands: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the registers of arithmetic: the first operand is written; a multiply-accumulate reads it too."""
    if not _VECTOR_OPERAND.search(operands):
        return frozenset(), frozenset()
    first, _, rest = operands.partition(",")
    written = frozenset(_plain(n) for n in _NAMED_REGISTER.findall(first))
    read = frozenset(_plain(n) for n in _NAMED_REGISTER.findall(rest))
    return read | (written if _ACCUMULATES.match(mnemonic) else frozenset()), written


def _plain(name: str) -> str:
    """Return the common name of a register of any width."""
    if name in ("sp", "wsp"):
        return "x31"
    return ("x" if name[0] in "wx" else "v") + name[1:]


def _name(found: CsInsn, register: int) -> str | None:
    """Return the common name of capstone's register number, or None for the zero register."""
    known = found.reg_name(register)
    if known is None or known in ("wzr", "xzr"):
        return None
    name = str(known)
    if name in ("lr", "fp"):
        return {"lr": "x30", "fp": "x29"}[name]
    return _plain(name) if name[1:].isdigit() or name in ("sp", "wsp") else name
