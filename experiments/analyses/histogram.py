"""How weights are distributed: counts, whatever the number of weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor


def histogram(values: Tensor, limit: float, bins: int) -> pd.DataFrame:
    """Counts of ``values`` in ``bins`` equal bins over [-limit, limit].

    Returns:
        rows ``low``, ``high``, ``count``; what lies outside is counted in the first and last row, with an infinite
        ``low`` or ``high``.
    """
    edges = np.concatenate([[-np.inf], np.linspace(-limit, limit, bins + 1), [np.inf]])
    counts, _ = np.histogram(values.detach().cpu().double().numpy(), edges)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": counts})
