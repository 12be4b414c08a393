"""Statistics as pure functions of arrays: numpy and scipy only.

Public modules: `ranks` (exact rank tests against nulls), `multiplicity` (maxT, Benjamini-Hochberg), `paired` (gains
over inputs, by cluster), `equivalence` (non-inferiority, two one-sided tests), `sequential` (looks on the way),
`power`, `divergence` and `proportions`. Each function refuses NaN and infinities by name, so no result holds one
that the data did not call for. Formulas, sources and simulations: docs/statistics.
"""
