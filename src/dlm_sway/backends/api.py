"""Models behind HTTP: a llama.cpp server, or one that speaks OpenAI's `/v1/completions`.

    kind: api
    base: org/base                      # whose tokenizer makes the tokens
    options:
      url: http://127.0.0.1:8080
      lora: 0                           # one llama.cpp server with a LoRA; or finetuned_model, or finetuned_url

Text is tokenised here and sent as ids, so the server's own rules for bos and templates have no say in the numbers;
`sway chain` compares those. A server gives the top of each distribution and no logits, so divergences are lower bounds
and reports say so; gains are exact. Nothing on the server is changed: a LoRA's scale goes with each request.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.api_find import find_wire
from dlm_sway.backends.api_options import ApiOptions, key_of, options_of
from dlm_sway.backends.api_read import whole
from dlm_sway.backends.api_text import NO_LOGPROBS
from dlm_sway.backends.api_view import ApiView, Asked
from dlm_sway.backends.api_wire import Prompt, Wire
from dlm_sway.backends.base import Format, Messages, Reply, Scored, Tools
from dlm_sway.backends.differential import Differential, Scaled
from dlm_sway.backends.encoding import TextEncoder
from dlm_sway.backends.http_client import Budget, HttpClient
from dlm_sway.backends.registry import register
from dlm_sway.backends.seeds import text_seeds
from dlm_sway.backends.top_k import Top, Values, compare, side_by_side
from dlm_sway.core.errors import BadInputError, CannotRunError, NotOfferedError, NullRuleError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, FINETUNED, View

_Wanted: TypeAlias = tuple[Scored, View]
_Name: TypeAlias = tuple[Any, ...]
_KEPT_POSITIONS: Final = 20_000
_MOST_BYTES: Final = 1 << 50
_MOST_TOKENS: Final = 1 << 20  # more than any vocabulary has
_NO_NULL: Final = "a server takes no other weights, so no rotation can be drawn"


class ApiBackend(Differential[ApiView]):
    """A base and a fine-tune behind HTTP.

    Attributes:
        options: what it was told.
        wires: the base's server and the fine-tune's, which may be one.
        budget: tokens spent and left.
        top_k: most probable tokens asked for at each position: as the options say, or what both servers allow.
    """

    kind: ClassVar[str]
    device: Any = "server"
    dtype: Any = "server"

    def __init__(self, options: ApiOptions, *, tokenizer: Any, name: str, sleepless: bool = False) -> None:
        """Connect and find out what the server speaks.

        Args:
            options: where, and how patiently.
            tokenizer: makes the tokens.
            name: what reports call it.
            sleepless: wait for nothing between attempts; for tests.

        Raises:
            BadInputError: the key is not set, or a server refuses.
            CannotRunError: a server cannot be reached.
        """
        self.options = options
        self.id = name
        self.budget = Budget(options.token_budget)
        self._n_tokens = len(tokenizer)
        self._first_wait_s = 0.0 if sleepless else options.first_wait_s
        self._key = key_of(options)
        self._clients: dict[str, HttpClient] = {}
        self._memo: OrderedDict[tuple[Any, ...], list[Top]] = OrderedDict()
        self._kept, self._lock = 0, threading.Lock()
        self._pool = ThreadPoolExecutor(options.concurrency, thread_name_prefix="sway-api")
        try:
            base = self._wire(options.url, options.model)
            self.wires: tuple[Wire, Wire] = (base, self._finetuned(base))
            self._require_like_prompts()
            # Both tops are cut at one depth, that of the server that allows less.
            self._most = min((wire.most for wire in self.wires if wire.most is not None), default=_MOST_TOKENS)
            self.top_k = min(options.top_k, self._most)
            self.vocab_size = _vocabulary(base) or self._n_tokens
            self.codec = TextEncoder(tokenizer, max_length=self._window(tokenizer))
        except BaseException:
            self.close()
            raise

    @property
    def source_name(self) -> str:
        """How numbers are made, for reports: a label that says what is a bound."""
        if self.scores_refusal():
            return next(wire.name for wire in self.wires if not wire.scores)
        return f"{self.wires[0].name}; divergences are lower bounds from the top {self.top_k}"

    def null_refusal(self) -> str | None:
        """Return why rotation nulls cannot be drawn."""
        return _NO_NULL

    def scores_refusal(self) -> str | None:
        """Return why no log-prob can be had, or None where both servers give them."""
        silent = [wire.client.url for wire in self.wires if not wire.scores]
        return f"{silent[0]}: {NO_LOGPROBS}" if silent else None

    def preflight_finite_check(self) -> tuple[bool, str]:
        """Ask each model for something: log-probs, or a token of text where there are none."""
        if not self.scores_refusal():
            return super().preflight_finite_check()
        for view in (BASE, FINETUNED):
            self.write(["Hello"], view, max_new_tokens=1)
        return True, ""

    def bits_per_weight(self) -> float | None:
        """Return in how many bits the base's server keeps a weight; None where it does not say."""
        told = _told(self.wires[0])
        size, n = (whole(told.get(name), below=_MOST_BYTES) for name in ("size", "n_params"))
        return 8.0 * size / n if size and n else None

    def scalars(self, rows: Sequence[Scored], views: Sequence[View], reducers: Sequence[str]) -> Values:
        """Return per-position scalars of rows; see `ScalarBackend`.

        Raises:
            CannotRunError: a server failed, or gives no log-prob for a token whose gain is asked for.
            NotOfferedError: a server gives no log-probs.
        """
        self._require_scores()
        base, *found = self._side_by_side(rows, (BASE, *views))
        out = side_by_side(base, found, reducers)
        targets = np.concatenate([row.targets for row in rows])
        if "gain" in out:
            self._require_known(out["gain"][:, targets >= 0])
        return out

    def repeat(self, rows: Sequence[Scored]) -> Values:
        """Return `kl` and `gain`, float32[P], of the base against itself: asked for twice."""
        self._require_scores()
        wanted = [(row, BASE) for row in rows]
        first, again = (self._answered(wanted, self.top_k, needed=set()) for _ in range(2))
        one, two = ([top for tops in found for top in tops] for found in (first, again))
        return {name: compare(one, two, name).astype(np.float32) for name in ("kl", "gain")}

    def write(
        self,
        prompts: Sequence[str | Messages],
        view: View,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        format: Format = "auto",  # noqa: A002 (DESIGN 5's word)
        tools: Tools | None = None,
    ) -> Sequence[Reply]:
        """Return a reply a prompt, written by the server."""
        wire = self._of(view)
        drawn = partial(wire.write, limit=max_new_tokens, temperature=temperature, top_p=top_p)
        given = [self._prompt(wire, p, format=format, tools=tools) for p in prompts]
        pairs = list(zip(given, text_seeds(seed, given), strict=True))
        return self._at_once(lambda pair: drawn(pair[0], seed=pair[1]), pairs)

    def close(self) -> None:
        """Close all connections; an open view answers no more, and calling it twice is harmless."""
        super().close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    def tops(self, rows: Sequence[Scored], view: View, top_k: int) -> list[list[Top]]:
        """Return the tops of each row, from memory where they were asked for before.

        Raises:
            NotOfferedError: a server gives no log-probs.
        """
        self._require_scores()
        return self._all([(row, view) for row in rows], top_k)

    def _prompt(
        self,
        wire: Wire,
        prompt: str | Messages,
        *,
        format: Format,  # noqa: A002 (DESIGN 5's word)
        tools: Tools | None,
    ) -> Prompt:
        if wire.takes == "turns":
            if tools:
                raise NotOfferedError("tools are not offered through /v1/chat/completions", where=self.id)
            if format == "raw" and isinstance(prompt, str):
                what = f"{wire.client.url} takes conversations alone"
                raise BadInputError(what, where=self.id, remedy="set format to auto or chat")
            return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
        if isinstance(prompt, str) and tools is None:
            ids = self.codec.encode_prompt(prompt, format=format)
        else:
            turns = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
            ids = self.codec.encode_messages(turns, tools)
        return self.codec.spell(ids) if wire.takes == "text" else tuple(ids.tolist())

    def _require_scores(self) -> None:
        if not all(wire.scores for wire in self.wires):
            url = next(wire.client.url for wire in self.wires if not wire.scores)
            remedy = "serve the model with llama.cpp or vLLM, or allow log-probs"
            raise NotOfferedError(NO_LOGPROBS, where=url, remedy=remedy)

    def _require_like_prompts(self) -> None:
        if len({wire.takes == "turns" for wire in self.wires}) > 1:
            names = " and ".join(wire.name.partition(",")[0] for wire in self.wires)
            what = f"one model takes conversations and the other texts ({names}), so no prompt is the same for both"
            raise BadInputError(what, where=self.id, remedy="serve both the same way")

    def _side_by_side(self, rows: Sequence[Scored], views: Sequence[View]) -> list[list[Top]]:
        """Return the tops of all rows one after another, for each view; all are asked for together."""
        found = self._all([(row, view) for view in views for row in rows], self.top_k)
        parts = [found[v * len(rows) : (v + 1) * len(rows)] for v in range(len(views))]
        return [[top for tops in part for top in tops] for part in parts]

    def _all(self, wanted: Sequence[_Wanted], top_k: int) -> list[list[Top]]:
        for view in {view for _, view in wanted}:
            self._of(view)  # names tell views apart by their scale alone, so what is no view here must stop here
        names = [self._name(row, view, top_k) for row, view in wanted]
        missing = {name: pair for name, pair in zip(names, wanted, strict=True) if name not in self._memo}
        self._answered(list(missing.values()), top_k, needed=set(names))
        return [self._memo[name] for name in names]

    def _answered(self, wanted: Sequence[_Wanted], top_k: int, *, needed: set[_Name]) -> list[list[Top]]:
        """Ask for rows, several at a time, and remember each as it comes, so that a failure loses no other."""
        wires = [self._of(view) for _, view in wanted]

        def ask(i: int) -> list[Top]:
            row, view = wanted[i]
            tops = wires[i].score(
                row, min(top_k, self.vocab_size, self._most), deep=self.options.deep and wires[i].deepens
            )
            self._remember(self._name(row, view, top_k), tops, needed=needed)
            return tops

        return self._at_once(ask, range(len(wanted)))

    def _remember(self, name: _Name, tops: list[Top], *, needed: set[_Name]) -> None:
        with self._lock:
            self._kept += len(tops) - len(self._memo.pop(name, ()))
            self._memo[name] = tops
            oldest = next(iter(self._memo))
            while self._kept > _KEPT_POSITIONS and oldest not in needed:
                self._kept -= len(self._memo.pop(oldest))
                oldest = next(iter(self._memo))

    def _at_once(self, call: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
        futures = [self._pool.submit(call, thing) for thing in things]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _require_known(self, gains: npt.NDArray[np.float32]) -> None:
        if unknown := int(np.isnan(gains).any(axis=0).sum()):
            raise CannotRunError(
                f"the server names no log-prob for {unknown} of {gains.shape[1]} tokens: they are outside its top "
                f"{self.top_k}",
                where=self.id,
                remedy="raise options.top_k, or use a server that gives the prompt's log-probs",
            )

    def _handle(self, label: str, view: View) -> ApiView:
        name = f"{self.id} [{label}]"
        if label != "bulk":
            self._of(view)
        return ApiView(name, self.codec, self._is_open, Asked(self, view))

    @staticmethod
    def _name(row: Scored, view: View, top_k: int) -> _Name:
        return row.ids.tobytes(), row.first, int(row.targets[-1]), view.lam, top_k

    def _of(self, view: View) -> Wire:
        """Return what answers for a view.

        Raises:
            NullRuleError: it is a null.
            CannotRunError: it is a scale, and nothing here can be scaled.
        """
        if view.lam == 0.0:
            return self.wires[0]
        if view.kind != "adapter":
            raise NullRuleError(_NO_NULL, where=self.id, remedy="its probes are calibrated by N0 and N5 only")
        if not self.options.has_finetuned:
            raise BadInputError(
                "no fine-tune is named", where=self.id, remedy="set lora, finetuned_model or finetuned_url"
            )
        if view.lam == 1.0:
            return self.wires[1]
        return self._scaled(view.lam)

    def _scaled(self, lam: float) -> Wire:
        raise CannotRunError(f"two endpoints cannot be scaled to {lam:g}", where=self.id, remedy="serve a LoRA")

    def _finetuned(self, base: Wire) -> Wire:
        o = self.options
        if o.finetuned_url is None and o.finetuned_model is None:
            return base
        return self._wire(o.finetuned_url or o.url, o.finetuned_model)

    def _wire(self, url: str, model: str | None) -> Wire:
        o = self.options
        if url not in self._clients:
            self._clients[url] = HttpClient(
                url, key=self._key, timeout_s=o.timeout_s, attempts=o.attempts, first_wait_s=self._first_wait_s
            )
        return find_wire(self._clients[url], self.budget, model=model, extra={}, top_k=min(o.top_k, self._n_tokens))

    def _window(self, tokenizer: Any) -> int:
        said = self.wires[0].client.get("/props")
        settings = said.get("default_generation_settings") if isinstance(said, dict) else None
        limits = [whole(settings.get("n_ctx")) if isinstance(settings, dict) else None, self.options.max_length]
        limits.append(min(getattr(tokenizer, "model_max_length", 2048), 1 << 20))
        # One token is left for the answer, without which no log-probs are given.
        return int(min(x for x in limits if isinstance(x, int) and x > 1)) - 1


class LoraApiBackend(Scaled[ApiView], ApiBackend):
    """One llama.cpp server that holds a LoRA: its scale goes with each request."""

    def _finetuned(self, base: Wire) -> Wire:
        loaded = base.client.get("/lora-adapters")
        entries = [entry for entry in loaded if isinstance(entry, dict)] if isinstance(loaded, list) else []
        ids = [i for entry in entries if (i := whole(entry.get("id"))) is not None]
        if self.options.lora not in ids:
            raise BadInputError(
                f"the server holds no LoRA with id {self.options.lora}; it has {ids or 'none'}",
                where=self.options.url,
                remedy="start it with --lora FILE; `sway convert --to gguf` makes the file",
            )
        return self._scaled_from(base, 1.0)

    def _of(self, view: View) -> Wire:
        return self._scaled(0.0) if view.lam == 0.0 else super()._of(view)

    def _scaled(self, lam: float) -> Wire:
        return self._scaled_from(self.wires[0], lam)

    def _scaled_from(self, wire: Wire, lam: float) -> Wire:
        return wire.having({"lora": [{"id": self.options.lora, "scale": lam}]})


def _vocabulary(wire: Wire) -> int | None:
    """Return how many tokens the model has, as a llama.cpp server says it; padded rows count, which no text has."""
    return whole(_told(wire).get("n_vocab")) or None


def _told(wire: Wire) -> Mapping[str, Any]:
    """Return what a llama.cpp server tells of the model; nothing where it is another server."""
    said = wire.client.get("/v1/models") if wire.deepens else None
    entries = said.get("data") if isinstance(said, dict) else None
    meta = entries[0].get("meta") if isinstance(entries, list) and entries and isinstance(entries[0], dict) else None
    return meta if isinstance(meta, dict) else {}


@register("api")
class Api:
    """Opens what a spec of kind `api` names; it is never an instance itself."""

    kind: ClassVar[str]
    opens: ClassVar[tuple[type[ApiBackend], ...]] = (ApiBackend, LoraApiBackend)

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> ApiBackend:
        """Connect to the servers of `spec.options`.

        Raises:
            BadInputError: an option is wrong, no fine-tune or tokenizer is found, or a server refuses.
            CannotRunError: a server cannot be reached.
        """
        options = options_of(spec)
        if not options.has_finetuned:
            what = "no fine-tune is named"
            raise BadInputError(what, where=options.url, remedy="set lora, finetuned_model or finetuned_url")
        return open_api(options, name=spec.base, revision=spec.revision)


def open_api(
    options: ApiOptions, *, name: str, revision: str | None = None, tokenizer: Any | None = None
) -> ApiBackend:
    """Return a backend on one server or two; without a fine-tune in the options it can only be read as its base.

    Args:
        options: where, and how patiently.
        name: what reports call it, and whose tokenizer is used unless the options name another.
        revision: of the tokenizer on the Hub.
        tokenizer: what makes the tokens, in place of that one.
    """
    from dlm_sway.backends.tokenizer import load_tokenizer

    if tokenizer is None:
        tokenizer = load_tokenizer(ModelSpec(base=options.tokenizer or name, revision=revision))
    backend = LoraApiBackend if options.lora is not None else ApiBackend
    return backend(options, tokenizer=tokenizer, name=name)
