"""How many replicas a rate of arrivals needs, by what requests that get no answer in time may cost.

What waits is bounded: behind more than the objective's slack, a request is refused. Requests that wait are a diffusion between
two walls, 0 and B = slack · μ, with a drift of λ - μ and a variance of λ for each second (arrivals vary, runs of an engine
hardly do). What hits the upper wall is missed; in requests a second that is

    m(λ, μ) = (μ - λ) / (e^(θB) - 1),    θ = 2 (μ - λ) / λ

(Harrison, Brownian Motion and Stochastic Flow Systems, 1985, chapter 5; Berger and Whitt 1992 for queues with room for so
many). It is λ / 2B where λ = μ, falls exponentially below, and tends to λ - μ above. A missed request weighs as much as `weight`
answered ones, each of which takes 1/c of a replica's second where a replica answers c. So the number is the n that makes

    n + weight / c · m(λ, n · c)

least (Borst, Mandelbaum and Reiman, Dimensioning Large Call Centers, 2004). At it no more than c / weight requests a second
are missed: one in `weight` at the most where one replica is full, fewer with more. No share of a replica is kept free as such:
the more slack the objective leaves, the closer to what a replica can answer it is used.
"""

from __future__ import annotations

import math
from typing import Final

_NONE_MISSED: Final = 50.0
"""Of θB: beyond it, e^-50 of the requests."""


def missed_rate(rate: float, capacity: float, slack_seconds: float) -> float:
    """Requests a second that get no answer in time: m(λ, μ) of the module's docstring.

    Args:
        rate: arrivals a second, at least 0.
        capacity: answers a second of all replicas together, at least 0.
        slack_seconds: how long a request may wait.
    """
    if rate <= 0 or capacity <= 0:
        return max(rate, 0.0)
    room = max(slack_seconds * capacity, 1.0)  # the one that is answered need not wait
    spare = capacity - rate
    exponent = 2 * spare / rate * room
    if exponent > _NONE_MISSED:
        return 0.0
    if abs(exponent) < 1e-6:  # noqa: PLR2004 (the limit is as good as the quotient from here on)
        return rate / (2 * room)
    return spare / math.expm1(exponent)


def count_for(rate: float, capacity: float, slack_seconds: float, weight: float) -> int:
    """The number of replicas of least cost.

    Args:
        rate: arrivals a second.
        capacity: answers a second of one replica, above 0.
        slack_seconds: how long a request may wait.
        weight: how many answered requests a missed one weighs.
    """
    if rate <= 0 or weight <= 1:  # a request that weighs no more than its answer costs is not worth one
        return 0
    number = math.floor(rate / capacity + 1e-9)
    price = weight / capacity
    missed = missed_rate(rate, number * capacity, slack_seconds)
    while missed > 0:
        less = missed_rate(rate, (number + 1) * capacity, slack_seconds)
        if price * (missed - less) <= 1:
            break
        number, missed = number + 1, less
    return number
