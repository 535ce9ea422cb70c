"""How good outputs are. `choice` says by what each is judged, `judge` judges, and knows whether it can tell anything."""

from penstock_optimizer.metrics.choice import judgements
from penstock_optimizer.metrics.comparing import compare, differs_by_rounding
from penstock_optimizer.metrics.figures import METRIC_UNSUITED, Comparison, Outputs, Scored, compare_figures
from penstock_optimizer.metrics.judge import Imported, Judge

__all__ = [
    "METRIC_UNSUITED",
    "Comparison",
    "Imported",
    "Judge",
    "Outputs",
    "Scored",
    "compare",
    "compare_figures",
    "differs_by_rounding",
    "judgements",
]
