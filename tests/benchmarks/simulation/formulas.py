"""What is known of checkpoints and failures without simulating anything.

A system whose failures are a Poisson process with a mean of `mtbf` seconds between them computes
for `interval` seconds, then saves for `saving` seconds, and takes `restart` seconds to begin again
from the last save. All are seconds.

J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17 (1974);
J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future
Generation Computer Systems 22 (2006).
"""

from __future__ import annotations

from math import exp, expm1, isinf, sqrt


def young(saving: float, mtbf: float) -> float:
    """Return Young's best interval of computing between saves."""
    return sqrt(2 * saving * mtbf)


def daly(saving: float, mtbf: float) -> float:
    """Return Daly's best interval, of a higher order: his equation 37."""
    if saving >= 2 * mtbf:
        return mtbf
    part = saving / (2 * mtbf)
    return young(saving, mtbf) * (1 + sqrt(part) / 3 + part / 9) - saving


def goodput(interval: float, saving: float, restart: float, mtbf: float) -> float:
    """Return the share of the time that is work which is never lost, by Daly's equation 20."""
    if isinf(mtbf):
        return interval / (interval + saving)
    return interval / (mtbf * exp(restart / mtbf) * expm1((interval + saving) / mtbf))


def goodput_behind(interval: float, saving: float, restart: float, mtbf: float) -> float:
    """Return the same where a save takes no time of the computation, which goes on beside it, and
    counts from when it is complete.

    To first order: a failure costs the restart, half an interval, and what was computed while the
    last save that is complete was written.
    """
    lost = restart + interval / 2 + min(saving, interval)
    return 1 / (1 + lost / mtbf)


def mtbf_of(nodes: int, mtbf_of_one: float) -> float:
    """Return the mean time between failures of some nodes, any of which ends all."""
    return mtbf_of_one / nodes
