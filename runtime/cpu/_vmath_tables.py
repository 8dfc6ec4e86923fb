"""Constants of `runtime.cpu.vmath`, one `Format` per floating-point type.

The polynomials are minimax fits made for this module: a Remez exchange in 60-digit decimal arithmetic
weighted for the relative error of the function that uses the polynomial, then the coefficients rounded to
the target type one at a time from the lowest, the others refitted after each.

ln 2 is split after Cody and Waite: `ln2_hi` has enough trailing zero bits that n * ln2_hi is exact for
every exponent n the type can have, and `ln2_lo` is the rest of ln 2.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """A binary floating-point type and the constants of its vector functions."""

    bits: int
    mantissa_bits: int
    bias: int
    ln2_hi: float
    ln2_lo: float
    # Outside [exp_min, exp_max] exp is 0 or inf; both lie beyond the last value that is neither.
    exp_min: float
    exp_max: float
    # Below expm1_min expm1 rounds to -1; above tanh_max and erf_max tanh and erf round to 1.
    expm1_min: float
    tanh_max: float
    erf_max: float
    # Polynomials, constant term first, each with the relative error of its function in float32 and float64.
    # (exp(r) - 1 - r) / r^2 on |r| <= ln2/2; of exp 2^-28.2 and 2^-57.7.
    exp: tuple[float, ...]
    # The same; of expm1, which is stricter near 0, 2^-28.8 and 2^-61.6.
    expm1: tuple[float, ...]
    # float32: (log(1 + f) - f + f^2/2) / f^3 on |f| <= 1/3; 2^-30.0.
    # float64: (2 atanh(s) / s - 2) / s^2 in s^2 on |s| <= 1/5; 2^-62.6.
    log: tuple[float, ...]
    # erf(x) / x - 1 in x^2 on |x| <= 1; 2^-29.4 and 2^-56.3.
    erf_small: tuple[float, ...]
    # -log(1 - erf(x)) on 0.98 <= x <= erf_max; of erf 2^-29.6 and 2^-58.9.
    erf_large: tuple[float, ...]


def _hex(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


LOG2_E = float.fromhex("0x1.71547652b82fep+0")
# Where erf passes from its polynomial in x*x to 1 - exp(-polynomial); both fits overlap here.
ERF_SPLIT = 0.99

FLOAT32 = Format(
    bits=32,
    mantissa_bits=23,
    bias=127,
    ln2_hi=float.fromhex("0x1.62e4p-1"),
    ln2_lo=float.fromhex("0x1.7f7d1cp-20"),
    exp_min=-105.0,
    exp_max=89.0,
    expm1_min=-18.0,
    tanh_max=10.0,
    erf_max=4.0,
    exp=_hex("0x1.fffffcp-2 0x1.55548cp-3 0x1.55586p-5 0x1.123db6p-7 0x1.6ab916p-10"),
    expm1=_hex("0x1p-1 0x1.555554p-3 0x1.5554b2p-5 0x1.111188p-7 0x1.6d71d6p-10 0x1.a03384p-13"),
    log=_hex(
        "0x1.555556p-2 -0x1.ffff02p-3 0x1.99986p-3 -0x1.559bbcp-3 0x1.24d732p-3 -0x1.f3339ep-4 0x1.bb59fap-4 "
        "-0x1.07e3b8p-3 0x1.dfe25cp-4"
    ),
    erf_small=_hex(
        "0x1.06eba8p-3 -0x1.81273ep-2 0x1.ce2ce6p-4 -0x1.b7f726p-6 0x1.53f2f6p-8 -0x1.a35a84p-11 0x1.4792c6p-14"
    ),
    erf_large=_hex(
        "0x1.3b6526p-12 0x1.209376p+0 0x1.4698e6p-1 0x1.a738aep-4 -0x1.67755ep-6 0x1.8593f4p-9 -0x1.8bf35cp-13"
    ),
)

FLOAT64 = Format(
    bits=64,
    mantissa_bits=52,
    bias=1023,
    ln2_hi=float.fromhex("0x1.62e42fefp-1"),
    ln2_lo=float.fromhex("0x1.473de6af278edp-34"),
    exp_min=-747.0,
    exp_max=710.0,
    expm1_min=-38.0,
    tanh_max=20.0,
    erf_max=6.0,
    exp=_hex(
        "0x1.000000000000ap-1 0x1.55555555554c4p-3 0x1.55555555504dp-5 0x1.1111111136561p-7 "
        "0x1.6c16c185209cep-10 0x1.a01a00d638cd4p-13 0x1.a01997226ac13p-16 0x1.71dfeaed498d3p-19 "
        "0x1.28b059bc2fc5cp-22 0x1.ac3941cf48f7ep-26"
    ),
    expm1=_hex(
        "0x1p-1 0x1.5555555555559p-3 0x1.5555555555558p-5 0x1.111111110f725p-7 0x1.6c16c16c177fdp-10 "
        "0x1.a01a01af93e2cp-13 0x1.a01a0197dc964p-16 0x1.71ddf94303ap-19 0x1.27e5084596565p-22 "
        "0x1.af5d078acdb17p-26 0x1.1f1f54ec4f0a9p-29"
    ),
    log=_hex(
        "0x1.555555555554fp-1 0x1.999999999c175p-2 0x1.24924921e58c5p-2 0x1.c71c748dd378ep-3 "
        "0x1.745c4b768ecbcp-3 0x1.3b35a900a4a86p-3 0x1.0dcd5bd6f05fp-3 0x1.1b7467cbcb01bp-3"
    ),
    erf_small=_hex(
        "0x1.06eba8214db69p-3 -0x1.812746b037a25p-2 0x1.ce2f21a0458dfp-4 -0x1.b82ce31355124p-6 "
        "0x1.565bcd2c723aap-8 -0x1.c02db936af404p-11 0x1.f9a3b9d2bcabap-14 -0x1.f4dcfc94305f5p-17 "
        "0x1.ba69b913fccc7p-20 -0x1.6396de3d65199p-23 0x1.1344ca023d62fp-26 -0x1.c5ad1d51a23c6p-30 "
        "0x1.3d03099a93f2cp-33"
    ),
    erf_large=_hex(
        "0x1.433bdb9be470cp-23 0x1.20dd5af5c4ebp+0 0x1.45f3ffc3e07e9p-1 0x1.a4de25dae608ap-4 "
        "-0x1.38b1b6281521p-6 -0x1.1b3f2476fe01p-12 0x1.ccbdbf62732e3p-10 -0x1.4b0492803ef72p-11 "
        "0x1.4017f2e53594ap-15 0x1.36464858936d7p-14 -0x1.86e3fda55d353p-15 0x1.1e13965dbb60cp-16 "
        "-0x1.2c35ab2b25fa8p-18 0x1.d95a31c495c75p-21 -0x1.18c7896630b25p-23 0x1.e8e2ab8a0ef84p-27 "
        "-0x1.279f8a71ecf76p-30 0x1.bc43967c973ebp-35 -0x1.3884e7913b8b9p-40"
    ),
)
