"""The one call with which a person in a notebook reads any published table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.storage.home import Home

if TYPE_CHECKING:
    import polars as pl

_BIG = frozenset({"stamps"})


def read_table(
    name: str,
    *,
    dataset: str | None = None,
    model: str | None = None,
    version: str | None = None,
    columns: Sequence[str] | None = None,
) -> "pl.DataFrame":
    """Read a published table, every byte verified.

    Parameters
    ----------
    name : str
        An asset's name for its own table (``"scores"``), or ``"asset/table"`` for another of its tables
        (``"stamp_store/quarantine"``). docs/tables.md lists them with their columns.
    dataset : str, optional
        Needed only where more than one dataset has published it.
    model : str, optional
        By default ``default``.
    version : str, optional
        By default the current one, the last that passed its checks; a red version can be read by its id.
    columns : sequence of str, optional
        By default all.

    Returns
    -------
    polars.DataFrame

    Raises
    ------
    StorageError
        If it was never published, is damaged, or the name is ambiguous.

    Examples
    --------
    >>> from lens_pipeline.storage import read_table
    >>> read_table("scores")  # doctest: +SKIP
    """
    import polars as pl

    asset, _, table = name.partition("/")
    if asset in _BIG:
        raise StorageError(
            f"{asset} holds pixels and doesn't fit a table in memory: stream it with "
            "lens_pipeline.stamps.fragments.Fragments, or read_table('stamp_store') for its rows without pixels."
        )
    home = Home.from_environment()
    publication = home.open(dataset or _only_dataset(home, asset, version), asset, model=model, version=version)
    return pl.DataFrame(publication.read_table(table or None, columns))


def _only_dataset(home: Home, asset: str, version: str | None) -> str:
    datasets = home.datasets_with(asset, version)
    if not datasets:
        raise StorageError(
            f"{asset}{f' {version}' if version else ''} was never published in {home}, which has "
            f"{first_few(home.assets(), 12) or 'nothing'}. Is LENS_PIPELINE_HOME right? "
            f"Next: make run, or dagster asset materialize --select {asset} -m lens_pipeline.definitions -c PRESET"
        )
    if len(datasets) > 1:
        raise StorageError(f"{asset} was published for {first_few(datasets)}: name one, dataset={datasets[0]!r}.")
    return datasets[0]
