"""What a target tells of INT8: whether it runs it, in which schemes and forms, and how many bits its sums bear."""

from orchestrator.plugin import Choice, Parameter, Refused, Target, narrowed

SCHEME = Choice(
    name="scheme",
    help="integer types of activations and weights, u: unsigned with a zero point, s: signed",
    choices=("u8s8", "s8s8", "u8u8"),
)
FORM = Choice(
    name="form",
    help="qdq: float operators between (de)quantizers, for the runtime to fuse; qoperator: integer operators",
    choices=("qdq", "qoperator"),
)

X86 = ("sse", "avx", "amx", "fma")
DOT_PRODUCTS = ("vnni", "amx")


def supported(target: Target, method: str) -> None:
    """Check that the target's runtime runs INT8 and that running it there is worth it.

    Raises:
        Refused: it does not.
    """
    if "int8" not in target.support.formats:
        raise Refused(f"{method}: the profile {target.profile.name} lists no int8 for {target.runtime}")


def runnable(parameters: tuple[Parameter, ...], target: Target, method: str) -> tuple[Parameter, ...]:
    """`parameters` with the schemes and forms that the target's runtime runs, the best first.

    Raises:
        Refused: it runs none.
    """
    supported(target, method)
    schemes = tuple(scheme for scheme in target.support.int8_schemes if scheme in SCHEME.choices)
    if not schemes:
        raise Refused(f"{method}: the profile {target.profile.name} lists no int8 scheme for {target.runtime}")
    # Integer operators are onnxruntime's own; other runtimes read the standard's QDQ only.
    forms = FORM.choices if target.runtime == "onnxruntime" else ("qdq",)
    return narrowed(parameters, scheme={"choices": schemes}, form={"choices": forms})


def saturates(target: Target) -> bool:
    """Whether sums of two u8 x s8 products overflow 16 bits on a core of the target, so that weights must keep to 7 bits.

    So it is on x86 without VNNI or AMX, whose kernels use VPMADDUBSW (Intel 2023, instruction set reference, volume 2).
    """
    x86 = [c for c in target.profile.clusters if any(f.lower().startswith(X86) for f in c.isa)]
    return any(not any(word in feature.lower() for feature in c.isa for word in DOT_PRODUCTS) for c in x86)
