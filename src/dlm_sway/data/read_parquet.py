"""Parquet: a record a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.extras import needs_extra
from dlm_sway.data.files import require_file, unreadable
from dlm_sway.data.reading import Record
from dlm_sway.data.registry import Reader, register
from dlm_sway.data.shapes import section_of
from dlm_sway.data.values import ONE_OF_THEM, without_padding

_ROWS: Final = 256


@register("parquet")
class ParquetReader(Reader):
    """Reads Parquet through pyarrow, a batch of rows at a time; places are row numbers, from 1."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def read(self, name: str) -> Iterator[Record]:
        """Yield a record a row."""
        require_file(Path(name))
        with needs_extra("reading Parquet"):
            import pyarrow as pa
            from pyarrow import parquet
        number = 0
        try:
            with parquet.ParquetFile(name) as table:
                _require_single(table.schema_arrow.names, name)
                for batch in table.iter_batches(batch_size=_ROWS, use_threads=False):
                    for row in batch.to_pylist():
                        number += 1
                        yield section_of(without_padding(row), source=name, line=number)
                if number != (said := table.metadata.num_rows):
                    what = f"says that it holds {said:,} rows, and {number:,} can be read"
                    raise BadInputError(what, where=name, remedy="write the file again")
        except pa.lib.ArrowException as exc:
            what = f"is no Parquet that can be read: {str(exc)[:120]}"
            raise BadInputError(what, where=f"{name}:{number + 1}", remedy="write the file again") from exc
        except UnicodeDecodeError as exc:
            what = "holds a string that is not UTF-8"
            raise BadInputError(what, where=f"{name}:{number + 1}", remedy="write the file again") from exc
        except OSError as exc:
            raise unreadable(Path(name), exc) from exc


def _require_single(columns: list[str], name: str) -> None:
    """Return if no two columns have one name, of which a row would lose a value."""
    if twice := next((column for column in columns if columns.count(column) > 1), None):
        raise BadInputError(f"has two columns `{twice[:40]}`", where=name, remedy=ONE_OF_THEM)
