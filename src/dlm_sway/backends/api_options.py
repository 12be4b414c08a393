"""What an `api` backend is told, and nothing secret among it."""

from __future__ import annotations

import os
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dlm_sway.backends.options import read_options
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec

_WHERE: Final = "options of an api backend"


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as http://127.0.0.1:8080")
    if parts.username or parts.password or parts.query:
        raise ValueError("must hold no user, password or query; a key comes from the environment (api_key_env)")
    return url.rstrip("/").removesuffix("/v1")


Address = Annotated[str, AfterValidator(_address)]


class ApiOptions(BaseModel):
    """The `options` of a spec of kind `api`. Frozen; unknown keys are refused.

    Attributes:
        url: address of the server with the base.
        model: name of the base on it, where it serves several.
        finetuned_url: address of the server with the fine-tune; the base's by default.
        finetuned_model: name of the fine-tune.
        lora: id of the adapter on a llama.cpp server that holds both; then scales work.
        api_key_env: name of the environment variable that holds the key.
        tokenizer: directory or Hub id of the tokenizer; the spec's `base` by default.
        top_k: most probable tokens asked for at each position; a server may give fewer, and one that refuses so many is
            asked for 20, then 5.
        deep: whether a llama.cpp server is asked once more, for all tokens, where the one that follows is not in the
            top.
        concurrency: requests at a time.
        timeout_s: longest wait for an answer to one attempt.
        attempts: how often a request is tried in all.
        first_wait_s: before the second attempt; it doubles from there on.
        token_budget: tokens that may be sent and received in all; None: no limit.
        max_length: context window in tokens, where the server does not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: Address
    model: str | None = None
    finetuned_url: Address | None = None
    finetuned_model: str | None = None
    lora: int | None = Field(default=None, ge=0)
    api_key_env: str | None = None
    tokenizer: str | None = None
    top_k: int = Field(default=64, ge=1)
    deep: bool = True
    concurrency: int = Field(default=4, ge=1, le=256)
    timeout_s: float = Field(default=60.0, gt=0)
    attempts: int = Field(default=5, ge=1)
    first_wait_s: float = Field(default=0.5, ge=0)
    token_budget: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=2)

    @property
    def has_finetuned(self) -> bool:
        """Whether a fine-tune is named."""
        return self.finetuned_url is not None or self.finetuned_model is not None or self.lora is not None


def options_of(spec: ModelSpec) -> ApiOptions:
    """Return the options of a spec.

    Raises:
        BadInputError: an option is unknown or wrong, or the spec names an adapter directory.
    """
    if spec.adapter is not None:
        remedy = "let the server load it (`sway convert --to gguf` for llama.cpp), and name it in the options"
        raise BadInputError("a server loads no adapter from here", where=spec.adapter, remedy=remedy)
    if {"api_key", "key", "token"} & set(spec.options):
        raise BadInputError(
            "a key must not stand in a spec",
            where=_WHERE,
            remedy="put it into an environment variable, and its name into api_key_env",
        )
    return read_options(ApiOptions, spec.options, where=_WHERE)


def key_of(options: ApiOptions) -> str | None:
    """Return the key from the environment, or None when no variable is named.

    Raises:
        BadInputError: the variable is not set.
    """
    if options.api_key_env is None:
        return None
    if not (key := os.environ.get(options.api_key_env, "").strip()):
        raise BadInputError(f"the environment variable {options.api_key_env} is not set", where=_WHERE)
    return key
