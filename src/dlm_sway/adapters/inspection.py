"""What an inspection found: faults, a row a module, and the facts they rest on."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, computed_field

from dlm_sway.core.result import Verdict

SCHEMA_VERSION: Final = 1
Severity: TypeAlias = Literal["fail", "warn", "info"]
ModuleKind: TypeAlias = Literal["linear", "embedding", "conv", "parameter", "whole"]


class Fault(BaseModel):
    """One thing that is wrong, or worth knowing, about an adapter.

    Attributes:
        code: stable name of the kind of fault, such as `not_finite`.
        severity: `fail` breaks the adapter, `warn` may, `info` does not.
        message: what was found and where, in one sentence.
        remedy: what to do next; empty where nothing is to be done.
        tensors: every tensor or module concerned, by the name it has in its file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    severity: Severity
    message: str
    remedy: str = ""
    tensors: tuple[str, ...] = ()


class ModuleRow(BaseModel):
    """The change that an adapter makes to one module.

    Norms are Frobenius norms of the stored values; None where the tensor is absent, not finite or cannot be compared.
    With DoRA the figures are those of the low-rank term alone, before the columns are rescaled.

    Attributes:
        module: name in the base; for a parameter trained whole that is no weight, the parameter's name.
        kind: `whole` is trained whole (`modules_to_save`), `parameter` is LoRA on a bare
            parameter (`target_parameters`).
        rank: of the stored factors.
        scale: what multiplies B A: alpha / r, or alpha / sqrt(r).
        norm_a: ||A||.
        norm_b: ||B||.
        norm_delta: ||delta W||, scale included.
        norm_weight: ||W|| of the base (see `BaseFiles.norm` for its accuracy).
        ratio: norm_delta / norm_weight.
        spectral: largest singular value of delta W.
        effective_rank: exp of the entropy of its singular values, between 1 and rank.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    kind: ModuleKind
    rank: int | None = None
    scale: float | None = None
    norm_a: float | None = None
    norm_b: float | None = None
    norm_delta: float | None = None
    norm_weight: float | None = None
    ratio: float | None = None
    spectral: float | None = None
    effective_rank: float | None = None


class AdapterFacts(BaseModel):
    """What an adapter is, apart from whether it is sound.

    Attributes:
        peft_type: as recorded.
        base_recorded: the base that the adapter says it was trained on.
        rank: default rank; None for methods other than LoRA.
        alpha: default alpha; None for methods other than LoRA.
        use_rslora: the scale is alpha / sqrt(r).
        use_dora: DoRA.
        target_modules: as recorded.
        modules_to_save: as recorded.
        bias: as recorded.
        n_tensors: tensors in the file.
        n_parameters: their elements.
        n_bytes: size of the weights file; None without one.
        sha256: hash of the weights file; None without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    peft_type: str | None
    base_recorded: str | None
    rank: int | None = None
    alpha: float | None = None
    use_rslora: bool = False
    use_dora: bool = False
    target_modules: tuple[str, ...] | str | None = None
    modules_to_save: tuple[str, ...] = ()
    bias: str = "none"
    n_tensors: int = 0
    n_parameters: int = 0
    n_bytes: int | None = None
    sha256: str | None = None


class Inspection(BaseModel):
    """The answer to Q0: is the adapter file sound, and does every tensor land on a module of this base?

    Attributes:
        schema_version: changes when a reader of the JSON would have to change.
        adapter: the adapter directory as named.
        base: the base that was looked for; None when neither the user nor the adapter names one.
        facts: what the adapter is.
        faults: worst first.
        modules: one row an adapted module, in the order of the names.
        not_done: codes of the faults that could not be looked for, because the base could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    adapter: str
    base: str | None
    facts: AdapterFacts
    faults: tuple[Fault, ...] = ()
    modules: tuple[ModuleRow, ...] = ()
    not_done: tuple[str, ...] = Field(default=())

    @computed_field  # type: ignore[prop-decorator]  # (pydantic's documented form: mypy has no decorated properties)
    @property
    def verdict(self) -> Verdict:
        """FAIL with a failing fault; else INCONCLUSIVE while a check is not done; else WARN or PASS.

        Without its base an adapter cannot be said to fit one, and absence of evidence never passes.
        """
        severities = {fault.severity for fault in self.faults}
        if "fail" in severities:
            return Verdict.FAIL
        if self.not_done:
            return Verdict.INCONCLUSIVE
        return Verdict.WARN if "warn" in severities else Verdict.PASS

    @property
    def summary(self) -> str:
        """One sentence: what was found, and the worst of it."""
        modules = f"{self.facts.n_tensors} tensors"
        if self.modules:
            modules += f" on {len(self.modules)} modules"
        reasons = [fault for fault in self.faults if fault.severity != "info"] or list(
            self.faults if self.not_done else ()
        )
        if not reasons:
            return f"{modules}, no fault found"
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return f"{reasons[0].message}{more}"
