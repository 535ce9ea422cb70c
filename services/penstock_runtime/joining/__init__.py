"""Whether requests may be joined: proved by trial runs, since neither names nor shapes of axes tell."""

from penstock_runtime.joining.trial import Trial, prove

__all__ = ["Trial", "prove"]
