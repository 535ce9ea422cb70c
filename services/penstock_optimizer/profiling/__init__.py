"""Where the time of a model goes, by operator, before and after a search."""

from penstock_optimizer.profiling.onnx import profile_onnx
from penstock_optimizer.profiling.variant import profile_variant

__all__ = ["profile_onnx", "profile_variant"]
