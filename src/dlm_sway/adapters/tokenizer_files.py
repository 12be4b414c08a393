"""How many token ids a saved tokenizer can produce, read from its JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlm_sway.adapters.json_file import read_json_object


def tokenizer_length(directory: Path) -> int | None:
    """Return the largest token id plus one of the tokenizer saved in `directory`, or None without a readable one.

    Counts `tokenizer.json` (vocabulary and added tokens) and `added_tokens.json`. Ids may have gaps, so it is the
    largest id that an embedding must hold, not the number of tokens.

    Raises:
        AdapterError: a tokenizer file is damaged.
    """
    main, added = directory / "tokenizer.json", directory / "added_tokens.json"
    ids: list[int] = []
    if main.is_file():
        ids.extend(_ids_of(read_json_object(main)))
    elif (directory / "vocab.json").is_file():
        ids.extend(_integers(read_json_object(directory / "vocab.json").values()))
    if added.is_file():
        ids.extend(_integers(read_json_object(added).values()))
    return max(ids) + 1 if ids else None


def _ids_of(tokenizer: dict[str, Any]) -> Iterator[int]:
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        yield from _integers(vocab.values())
    elif isinstance(vocab, list) and vocab:
        yield len(vocab) - 1  # Unigram: a list of (piece, score); the id is the position
    for token in added if isinstance(added, list) else []:
        yield from _integers([token.get("id")] if isinstance(token, dict) else [])


def _integers(values: Any) -> Iterator[int]:
    return (value for value in values if isinstance(value, int) and not isinstance(value, bool))
