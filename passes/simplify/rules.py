"""The list of simplifying rules, and what makes one exact.

A rule keeps every bit of every value: NaN stays NaN (its payload and sign mean nothing here), infinities, subnormals
and the sign of zero stay, integers wrap around as before. For floats this follows from IEEE 754: an operation gives the
correctly rounded value of an exact result, so that two operations with one exact result give the same bits, if they
agree on the sign of an exact zero and on when the result is NaN. A change of sign rounds nothing, and rounding to
nearest does not see signs. Integers are a ring modulo a power of two, where all laws of rings hold.

Refused, because some value would change:

    x + 0, 0 + x                    -0.0 becomes 0.0 (x + -0.0 and x - 0 are x)
    0 - x                           is 0.0 for 0.0, and -x is -0.0
    x * 0, x - x, x / x, x == x     NaN and infinities (of integers they go)
    -(x - y), -x - y                y - x and -(x + y) are zeros of the other sign
    x / 3, (x * a) * b, sum(sum(x)) round differently (integers: not)
    sum over one element            0 + -0.0 is 0.0 (integers, and other reductions: not)
    x ** 0.5                        is 0.0 for -0.0, and inf for -inf
    not (x < y)                     NaN is neither less nor greater or equal (integers: not)
    sum of a permuted tensor        adds up in another order
    (s * a) @ b                     rounds before the sum, and s * (a @ b) after it

What a rule drops must not be able to fail: an index out of range is found even where nothing needs the result.
"""

from passes.rewriting import Rules

RULES = Rules("simplify")
