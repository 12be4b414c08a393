"""Do two samplers write alike? A two-sample test on sampled sequences, with a kernel that is fixed in advance.

The kernel of two sequences is the share of positions at which they have the same symbol (Hamming). Its squared maximum
mean discrepancy (Gretton et al. 2012, "A kernel two-sample test", JMLR 13) has a plain meaning: the mean over positions
of the squared distance between the two distributions of the symbol there, ||p - q||^2. It was found to be the strongest
of several kernels at telling which model answers behind an interface (Gao, Liang and Guestrin 2024, "Model equality
testing", arXiv:2410.20247). It is not characteristic: samplers that differ only in how positions go together have 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError
from dlm_sway.stats._inputs import FloatArray, IntArray, count

N_PERMUTATIONS: Final = 9_999
FEWEST: Final = 2
"""Samples of a side at a prompt: with one there is no agreement of a sampler with itself."""
ENDED: Final = -1
"""Symbol of a position behind the end of a sequence."""
_TIE: Final = 1e-12


@dataclass(frozen=True, slots=True)
class TwoSample:
    """How far two samplers are apart.

    Attributes:
        estimate: mean over prompts of the unbiased MMD^2; about 0, and often negative, where both are the same.
        per_prompt: float64[P], the unbiased MMD^2 of each prompt.
        p: one-sided p-value of the estimate among relabelled samples, exact by the +1 rule.
        draws: float64[B], the estimate at each relabelling.
        within: agreement of two samples of one side, mean over prompts, for the first and the second side.
        between: agreement of a sample of one side with one of the other.
    """

    estimate: float
    per_prompt: FloatArray
    p: float
    draws: FloatArray
    within: tuple[float, float]
    between: float


def aligned(sequences: Sequence[npt.ArrayLike], *, length: int) -> IntArray:
    """Return int64[n, length]: each sequence cut to `length` symbols, and `ENDED` behind its end.

    Args:
        sequences: of symbols, integers >= 0.
        length: positions that are compared.

    Raises:
        BadInputError: a negative symbol, or a length under 1.
    """
    length = count(length, where="aligned: length", at_least=1)
    rows = np.full((len(sequences), length), ENDED, dtype=np.int64)
    for i, sequence in enumerate(sequences):
        symbols = np.asarray(sequence, dtype=np.int64)[:length]
        if (symbols < 0).any():
            raise BadInputError(f"sequence {i} has a negative symbol", where="aligned")
        rows[i, : symbols.size] = symbols
    return rows


def two_sample(
    first: Sequence[npt.NDArray[np.int64]],
    second: Sequence[npt.NDArray[np.int64]],
    *,
    n_permutations: int = N_PERMUTATIONS,
    rng: np.random.Generator,
) -> TwoSample:
    """Return the mean MMD^2 over prompts and its permutation p-value.

    Labels are permuted among the samples of one prompt, never across prompts: what one prompt draws out of a model says
    nothing of another. If at each prompt all samples are independent and of one distribution, every labelling is
    equally likely, and p = (1 + #{permuted >= observed}) / (n_permutations + 1) is exact. Ties count against us.

    Args:
        first: for each prompt int64[n, L], samples of the one side, as `aligned` gives them; n >= 2.
        second: the same of the other side; numbers of samples may differ.
        n_permutations: random relabellings.
        rng: for them.

    Raises:
        BadInputError: no prompt, unequal numbers of prompts or positions, or fewer than two samples of a side.
    """
    n_permutations = _two_sample_iv(first, second, n_permutations)
    values, agreements, draws = [], [], np.zeros(n_permutations)
    for x, y in zip(first, second, strict=True):
        kernel = _hamming(np.concatenate([x, y]))
        parts = _parts(kernel, np.arange(len(x) + len(y))[None, :] < len(x))  # [3, 1]
        agreements.append(parts[:, 0])
        values.append(float(_discrepancy(parts)[0]))
        draws += _discrepancy(_parts(kernel, _labellings(len(x), len(y), n_permutations, rng=rng))) / len(first)
    per_prompt, agreement = np.array(values), np.mean(agreements, axis=0)
    estimate = float(per_prompt.mean())
    reached = int((draws >= estimate - _TIE).sum())
    return TwoSample(
        estimate=estimate,
        per_prompt=per_prompt,
        p=(1 + reached) / (1 + n_permutations),
        draws=draws,
        within=(float(agreement[0]), float(agreement[1])),
        between=float(agreement[2]),
    )


def _two_sample_iv(first: Sequence[Any], second: Sequence[Any], n_permutations: int) -> int:
    if not first or len(first) != len(second):
        what = f"needs the same prompts on both sides, got {len(first)} and {len(second)}"
        raise BadInputError(what, where="two_sample")
    shapes = [np.shape(rows) for rows in (*first, *second)]
    if any(len(shape) != 2 for shape in shapes) or len({shape[1] for shape in shapes}) > 1:  # noqa: PLR2004 ([n, L])
        raise BadInputError("samples must be [n, L] with one L for all", where="two_sample")
    if (fewest := min(shape[0] for shape in shapes)) < FEWEST:
        raise BadInputError(f"needs {FEWEST} samples of each side at each prompt, got {fewest}", where="two_sample")
    return count(n_permutations, where="two_sample: n_permutations", at_least=1)


def _hamming(rows: IntArray) -> FloatArray:
    """Return float64[N, N]: the share of positions at which two of `rows` int64[N, L] agree."""
    return np.asarray((rows[:, None, :] == rows[None, :, :]).mean(axis=-1))


def _labellings(n: int, m: int, times: int, *, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return bool[times, n + m]: which n of the n + m samples go by the first name."""
    keys = rng.random((times, n + m))
    return keys <= np.partition(keys, n - 1, axis=1)[:, n - 1 : n]


def _parts(kernel: FloatArray, in_first: npt.NDArray[np.bool_]) -> FloatArray:
    """Return float64[3, B]: mean kernel within the first side, within the second, and between, a sample never with
    itself; `in_first` is bool[B, N].
    """  # noqa: D205 (one sentence)
    apart = kernel - np.diag(np.diag(kernel))
    z = in_first.astype(np.float64)
    n = int(in_first[0].sum())
    m = len(kernel) - n
    seen = z @ apart  # [B, N]
    # Sums of what is not negative, and no differences: rounding must not make a share negative.
    xx, xy = (seen * z).sum(axis=1), (seen * (1 - z)).sum(axis=1)
    yy = (((1 - z) @ apart) * (1 - z)).sum(axis=1)
    return np.stack([xx / (n * (n - 1)), yy / (m * (m - 1)), xy / (n * m)])


def _discrepancy(parts: FloatArray) -> FloatArray:
    return np.asarray(parts[0] + parts[1] - 2 * parts[2])
