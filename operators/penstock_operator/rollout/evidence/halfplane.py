"""E-values for two shares of which one must not exceed the other by more than a margin.

A block has n_c requests of the candidate, x_c of which are events (failed, or slow), and n_b and x_b of the baseline. The null
hypothesis is a convex set of pairs of shares: `p_c <= p_b + margin` (to show harm), or `p_c >= p_b + margin` (to prove that the
candidate is no worse). For an alternative (t_c, t_b), and (q_c, q_b) the null's pair that is nearest to it by the Kullback-Leibler
divergence of such a block,

    E = prod over arms a of  (t_a/q_a)^x_a ((1-t_a)/(1-q_a))^(n_a-x_a)

is an e-value: its mean is at most 1 under each pair of the null (Turner, Ly and Grünwald, "Generic E-variables for exact
sequential k-sample tests", JSPI 2024; for margins, Turner and Grünwald, arXiv 2203.09785). The reason, which the code makes
certain of: the mean of one request's factor is `1 + c_a (p_a - q_a)` with `c_a = (t_a - q_a) / (q_a (1 - q_a))`, so the log of
the block's is at most `sum n_a c_a (p_a - q_a)`, which is linear in the shares; its greatest value over the null is at a corner
of that set, and is 0 where q is the nearest pair. Whatever rounding leaves above 0 there is taken off, so that no numerical error
of q makes an e-value too great. As only sums of shares occur in the bound, shares may differ from request to request, as long as
the arms' means are in the null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array, clip

LEAST: Final = 1e-6
"""Of a share that an alternative takes to be true, and of its complement."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Events and requests of both arms in one block; each of shape (rollouts,)."""

    candidate_events: Array
    candidate: Array
    baseline_events: Array
    baseline: Array


def log_evidence(counts: PairCounts, candidate: Array, baseline: Array, margin: float, *, harm: bool) -> Array:
    """Logs of e-values of shape (rollouts, alternatives).

    Args:
        counts: Of the block.
        candidate: The alternatives' shares of the candidate, (rollouts, alternatives).
        baseline: Those of the baseline, of the same shape.
        margin: In [-1, 1].
        harm: Whether the null is `p_c <= p_b + margin`; else it is `p_c >= p_b + margin`.

    An alternative that is in the null itself is no evidence: 0.
    """
    t_c, t_b = clip(candidate, LEAST, 1 - LEAST), clip(baseline, LEAST, 1 - LEAST)
    n_c, n_b = counts.candidate[:, None], counts.baseline[:, None]
    q_c, q_b = nearest_pair(t_c, t_b, n_c, n_b, margin)
    gain_c, loss_c, gain_b, loss_b = np.log(t_c / q_c), _log_rest(t_c, q_c), np.log(t_b / q_b), _log_rest(t_b, q_b)
    x_c, x_b = counts.candidate_events[:, None], counts.baseline_events[:, None]
    value = x_c * gain_c + (n_c - x_c) * loss_c + x_b * gain_b + (n_b - x_b) * loss_b
    slope_c, slope_b = n_c * (t_c - q_c) / (q_c * (1 - q_c)), n_b * (t_b - q_b) / (q_b * (1 - q_b))
    excess = np.zeros_like(value)
    for p_c, p_b in _corners(margin, harm=harm):
        excess = np.maximum(excess, slope_c * (p_c - q_c) + slope_b * (p_b - q_b))
    outside = (t_c - t_b > margin) if harm else (t_c - t_b < margin)
    return np.where(outside & (n_c > 0), value - excess, 0.0)


def nearest_pair(t_c: Array, t_b: Array, n_c: Array, n_b: Array, margin: float) -> tuple[Array, Array]:
    """The pair on `p_c = p_b + margin` that is nearest to (t_c, t_b) by n_c KL(t_c, p_c) + n_b KL(t_b, p_b).

    It is the maximum-likelihood estimate under that restriction, had n_c t_c and n_b t_b events been seen: the root of a cubic, in
    closed form by Miettinen and Nurminen, "Comparative analysis of two rates", Statistics in Medicine 4 (1985), appendix 1.
    """
    low, high = max(0.0, margin) + LEAST / 2, min(1.0, 1.0 + margin) - LEAST / 2
    if margin == 0.0:
        pooled = clip((n_c * t_c + n_b * t_b) / np.maximum(n_c + n_b, 1e-12), low, high)
        return pooled, pooled
    total = np.maximum(n_c + n_b, 1e-12)
    f_c, f_b = n_c / total, n_b / total
    # f_c (p - t_c) (p - m) (1 - p + m) + f_b (p - m - t_b) p (1 - p) = 0 for the candidate's share p, as p^3 + b p^2 + c p + d.
    b = -(1 + margin + f_c * (margin + t_c) + f_b * t_b)
    c = f_c * (margin * (1 + margin) + t_c * (1 + 2 * margin)) + f_b * (margin + t_b)
    d = -f_c * t_c * margin * (1 + margin)
    third = b / 3
    v = third**3 - third * c / 2 + d / 2
    u = np.where(v < 0, -1.0, 1.0) * np.sqrt(np.maximum(third**2 - c / 3, 1e-30))
    angle = (np.pi + np.arccos(clip(v / u**3, -1.0, 1.0))) / 3
    q_c = clip(2 * u * np.cos(angle) - third, low, high)
    return q_c, q_c - margin


def _log_rest(t: Array, q: Array) -> Array:
    return np.log1p(-t) - np.log1p(-q)


def _corners(margin: float, *, harm: bool) -> tuple[tuple[float, float], ...]:
    """Of the null, as shares of the candidate and the baseline."""
    on_line = ((max(0.0, margin), max(0.0, -margin)), (min(1.0, 1 + margin), min(1.0, 1 - margin)))
    beyond = ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0)) if harm else ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    inside = tuple((p_c, p_b) for p_c, p_b in beyond if (p_c <= p_b + margin if harm else p_c >= p_b + margin))
    return (*on_line, *inside)
