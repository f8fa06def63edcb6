"""INT8 support of a target: integer types, formats, and saturation of sums."""

from orchestrator.plugin import Choice, Parameters, Refused, Target, narrowed

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


def require_int8(target: Target, method: str) -> None:
    """Check that the profile lists INT8 for the target's runtime.

    Raises:
        Refused: It does not.
    """
    if "int8" not in target.support.formats:
        raise Refused(f"{method}: the profile {target.profile.name} lists no int8 for {target.runtime}")


def with_supported_schemes(parameters: Parameters, target: Target, method: str) -> Parameters:
    """Return the parameters with the schemes and forms that the target's runtime supports, the best first.

    Raises:
        Refused: It supports none.
    """
    require_int8(target, method)
    schemes = tuple(scheme for scheme in target.support.int8_schemes if scheme in SCHEME.choices)
    if not schemes:
        raise Refused(f"{method}: the profile {target.profile.name} lists no int8 scheme for {target.runtime}")
    # Integer operators are onnxruntime's own; other runtimes read the standard's QDQ only.
    forms = FORM.choices if target.runtime == "onnxruntime" else ("qdq",)
    return narrowed(parameters, scheme={"choices": schemes}, form={"choices": forms})


def saturates(target: Target) -> bool:
    """Return True if sums of two u8 x s8 products overflow 16 bits on a core of the target, so that weights need 7 bits.

    This is so on x86 without VNNI or AMX, whose kernels use VPMADDUBSW (Intel 2023, instruction set reference, volume 2).
    """
    x86 = [c for c in target.profile.clusters if any(f.lower().startswith(X86) for f in c.isa)]
    return any(not any(word in feature.lower() for feature in c.isa for word in DOT_PRODUCTS) for c in x86)
