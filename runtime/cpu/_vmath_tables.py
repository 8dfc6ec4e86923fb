"""Constants of `runtime.cpu.vmath`, one `Format` per floating-point type.

The polynomials are minimax fits made for this module: a Remez exchange in 60-digit decimal arithmetic
weighted for the relative error of the function that uses the polynomial, then the coefficients rounded to
the target type one at a time from the lowest, the others refitted after each (those of erfc, whose
interval contains 0, all at once).

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
    exp2_min: float
    exp2_max: float
    # Below expm1_min expm1 rounds to -1; above tanh_max and erf_max tanh and erf round to 1.
    expm1_min: float
    tanh_max: float
    erf_max: float
    # Constants as sums of two, the second the rest of the first. An exponent times the first part of log10_2 is exact.
    ln2: tuple[float, float]
    log2_e: tuple[float, float]
    log10_e: tuple[float, float]
    log10_2: tuple[float, float]
    half_pi: tuple[float, float]
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
    # (sinh(x) / x - 1) / x^2 in x^2 on |x| <= 1; 2^-31.6 and 2^-61.8.
    sinh: tuple[float, ...]
    # (asin(x) / x - 1) / x^2 in x^2 on |x| <= 1/2; 2^-31.6 and 2^-59.8.
    asin: tuple[float, ...]
    # (atan(x) / x - 1) / x^2 in x^2 on |x| <= tan(pi/8); 2^-33.9 and 2^-63.8.
    atan: tuple[float, ...]


def _hex(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


def _pair(text: str) -> tuple[float, float]:
    high, low = _hex(text)
    return high, low


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
    exp2_min=-152.0,
    exp2_max=129.0,
    expm1_min=-18.0,
    tanh_max=10.0,
    erf_max=4.0,
    ln2=_pair("0x1.62e43p-1 -0x1.05c61p-29"),
    log2_e=_pair("0x1.715476p+0 0x1.4ae0cp-26"),
    log10_e=_pair("0x1.bcb7b2p-2 -0x1.5b235ep-27"),
    log10_2=_pair("0x1.344p-2 0x1.3509f8p-18"),
    half_pi=_pair("0x1.921fb6p+0 -0x1.777a5cp-25"),
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
    sinh=_hex("0x1.555556p-3 0x1.1110ep-7 0x1.a022bap-13 0x1.756cb4p-19"),
    asin=_hex("0x1.55554cp-3 0x1.3338acp-4 0x1.6ca806p-5 0x1.04c6fep-5 0x1.d627f2p-7 0x1.3451cp-5"),
    atan=_hex("-0x1.555554p-2 0x1.99989p-3 -0x1.246fc4p-3 0x1.c2f374p-4 -0x1.534404p-4 0x1.64608ap-5"),
)

FLOAT64 = Format(
    bits=64,
    mantissa_bits=52,
    bias=1023,
    ln2_hi=float.fromhex("0x1.62e42fefp-1"),
    ln2_lo=float.fromhex("0x1.473de6af278edp-34"),
    exp_min=-747.0,
    exp_max=710.0,
    exp2_min=-1077.0,
    exp2_max=1025.0,
    expm1_min=-38.0,
    tanh_max=20.0,
    erf_max=6.0,
    ln2=_pair("0x1.62e42fefa39efp-1 0x1.abc9e3b39803fp-56"),
    log2_e=_pair("0x1.71547652b82fep+0 0x1.777d0ffda0d24p-56"),
    log10_e=_pair("0x1.bcb7b1526e50ep-2 0x1.95355baaafad3p-57"),
    log10_2=_pair("0x1.34413509f7p-2 0x1.3fde623e2566bp-43"),
    half_pi=_pair("0x1.921fb54442d18p+0 0x1.1a62633145c07p-54"),
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
    sinh=_hex(
        "0x1.5555555555556p-3 0x1.111111111101dp-7 0x1.a01a01a03755ep-13 0x1.71de3a3ad47e8p-19 "
        "0x1.ae64702626393p-26 0x1.6116de2cdb06cp-33 0x1.b5d05d7aa8e29p-41"
    ),
    asin=_hex(
        "0x1.5555555555577p-3 0x1.333333332e10bp-4 0x1.6db6db72156fap-5 0x1.f1c71a93725f7p-6 "
        "0x1.6e8bdf1301f08p-6 0x1.1c49ec4cc90cep-6 0x1.ca1ff94ee669dp-7 0x1.7581cae34e8e5p-7 "
        "0x1.61530d2925c07p-7 0x1.e48c89c1a5735p-9 0x1.64102f1536a7fp-6 -0x1.58a92f72be9b3p-6 "
        "0x1.0b7ec63497acbp-5"
    ),
    atan=_hex(
        "-0x1.5555555555554p-2 0x1.9999999999584p-3 -0x1.249249246f58fp-3 0x1.c71c71b458ed1p-4 "
        "-0x1.745d14504bfb1p-4 0x1.3b1364f06b321p-4 -0x1.110beb7873a71p-4 0x1.e167bb571cb98p-5 "
        "-0x1.ab3bf242b47dep-5 0x1.6fe4e5aff28fcp-5 -0x1.0fd532f52ac69p-5 0x1.e84c188fcf1dbp-7"
    ),
)

# 3 pi/4, by the bits of the type.
THREE_QUARTERS_PI = {
    32: _pair("0x1.2d97c8p+1 -0x1.99bc5cp-28"),
    64: _pair("0x1.2d97c7f3321d2p+1 0x1.a79394c9e8a0ap-54"),
}
# (2 atanh(s) / s - 2 - 2/3 s^2 - 2/5 s^4) / s^6 in s^2 on |s| <= 1/5; of log 2^-68.3.
LOG_TAIL = _hex(
    "0x1.24924924941f1p-2 0x1.c71c71c20b437p-3 0x1.745d1a0e627e1p-3 0x1.3b12e48fe111fp-3 "
    "0x1.11328f2bbdb97p-3 0x1.db9bf80aada72p-4 0x1.fe89551e53189p-4"
)
# erfc(x) exp(x^2) (1 + 2x) in (x - k) / (x + k) on 1/2 <= x: k = 4 up to 28, 2^-54.5; k = 3 up to 10.5, 2^-30.9.
ERFC = _hex(
    "0x1.3ba5916e9fd7fp+0 -0x1.1df1ad154a28ep-3 0x1.f7f5df66fd532p-7 0x1.16ecefcfa5312p-4 "
    "-0x1.9ddb23c3e7accp-4 0x1.7fee004e13b55p-4 -0x1.0fb06dfe6e8d2p-4 0x1.3079edf649c6dp-5 "
    "-0x1.0962387d0171fp-6 0x1.49c6729b379adp-8 -0x1.8d4aa208b29a9p-11 -0x1.a1df38e37d2b7p-13 "
    "0x1.3be0e05125cb8p-13 -0x1.995656b226bdep-16 -0x1.78a565d8d702ap-17 0x1.7f037e85aeba9p-18 "
    "0x1.41faee13fd47p-22 -0x1.b8a8a46b13bd5p-21 0x1.1eb62332e943ep-24 0x1.c013e14814c39p-24 "
    "-0x1.a09c1d011aacfp-27 -0x1.58b1466080bdbp-27"
)
ERFC_SHORT = _hex(
    "0x1.40c522da5cdf8p+0 -0x1.15c0843bee15cp-3 -0x1.85a18bea7288p-5 0x1.09834b5cbb8b7p-3 "
    "-0x1.e8893cf8cecd3p-4 0x1.17cdd57c63f1ap-4 -0x1.85c1a655b2138p-6 0x1.480abaed6126p-9 "
    "0x1.ffbd25d580832p-10 -0x1.683e2e67057eap-11 -0x1.7b0c9dd4b1c07p-13"
)
# For results of float32 in `runtime.cpu.vmath_power`. log2((1 + s) / (1 - s)) / s in s^2 on |s| <= 1/5, 2^-42.4; and
# 2^r on |r| <= 1/2, 2^-34.5.
LOG2_SHORT = _hex(
    "0x1.71547652b7e9bp+1 0x1.ec709dcb4ee19p-1 0x1.2776bc593b0dbp-1 0x1.a61e97e61f2aep-2 0x1.46f3719da26dbp-2 "
    "0x1.29c6fb3010071p-2"
)
EXP2_SHORT = _hex(
    "0x1.ffffffffabbd2p-1 0x1.62e42ff1162bcp-1 0x1.ebfbe0a4be162p-3 0x1.c6b08aaf26319p-5 0x1.3b29dc412337dp-7 "
    "0x1.5d8a7092b7022p-10 0x1.446a1fa8c1e96p-13 0x1.fe177704c65cep-17"
)
# For `runtime.cpu.vmath_trigonometric`. pi/2 as a sum of three.
HALF_PI = _hex("0x1.921fb54442d18p+0 0x1.1a62633145c07p-54 -0x1.f1976b7ed8fbcp-110")
# The first 1216 bits of 2/pi after the point.
TWO_OVER_PI = int(
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424d"
    "d2e006492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639"
    "835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f46"
    "3f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6bab",
    16,
)
# (sin(r) / r - 1) / r^2 and (cos(r) - 1 + r^2/2) / r^4 in r^2 on |r| <= pi/4, for results of float64 (2^-57.9 and
# 2^-63.8) and of float32 (2^-37.4 and 2^-42.9).
SIN = _hex(
    "-0x1.5555555555548p-3 0x1.111111110f724p-7 -0x1.a01a019be6c4p-13 0x1.71de35529b25dp-19 "
    "-0x1.ae5e493345958p-26 0x1.5d8a96e658ff5p-33"
)
COS = _hex(
    "0x1.555555555554ap-5 -0x1.6c16c16c14ep-10 0x1.a01a019c5c3f4p-16 -0x1.27e4f7cd3f928p-22 "
    "0x1.1ee9c347b2f3fp-29 -0x1.8f99d9fd22833p-37"
)
SIN_SHORT = _hex("-0x1.5555554c3a883p-3 0x1.11110841d52b7p-7 -0x1.a00f5e1997f7dp-13 0x1.6cc9f67be74fcp-19")
COS_SHORT = _hex("0x1.5555554eb0439p-5 -0x1.6c16b7fe2292bp-10 0x1.a010c21c0d4ap-16 -0x1.2418ba022230cp-22")
