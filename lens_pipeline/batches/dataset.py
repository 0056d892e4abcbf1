"""A store as a plain torch Dataset, for people who bring their own loop.

Batches of whole tensors, one gather each, for any number of workers, forked or spawned:

>>> from torch.utils.data import DataLoader
>>> from lens_pipeline.batches.dataset import StampDataset, as_tensors
>>> from lens_pipeline.stamps.store import refuse_damaged
>>> from lens_pipeline.storage.home import Home
>>> publication = Home.from_environment().open("simulated", "stamp_store")
>>> refuse_damaged(publication)  # re-reads every byte; opening alone looks at headers and sizes
>>> dataset = StampDataset(publication)
>>> loader = DataLoader(dataset, batch_size=256, shuffle=True, num_workers=0, collate_fn=as_tensors)
>>> for batch in loader:
...     pixels, labels, logical = batch["pixels"], batch["label"], batch["logical"]

The default collate_fn gives the same tensors, by one more copy. Worker processes lose to threads here: most of their time
goes into handing batches over; `loader.Loader` is what training uses.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.store import Logical, StampStore
from lens_pipeline.storage.publication import Publication

Sample = dict[str, torch.Tensor]


class Samples(Sequence[Sample]):
    """Some rows as one dict of tensors, and as a sequence of dicts of their views."""

    def __init__(self, tensors: Sample) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["logical"])

    def __getitem__(self, place: Any) -> Any:
        """Return one row; its tensors are views."""
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return {name: tensor[place] for name, tensor in self.tensors.items()}


def as_tensors(samples: Samples) -> Sample:
    """Give a batch as it was gathered: `collate_fn` of a DataLoader."""
    return samples.tensors


class StampDataset(Dataset[Sample]):
    """Rows of a committed store.

    A sample, and a batch with one more axis in front, is a dict: ``pixels`` float16 (band, y, x), nanomaggy, unclipped;
    ``median`` and ``mad`` float32 (band,), nanomaggy; ``label`` int64; ``logical`` int64, the row's number in this version
    of the store, by which everything else about it is found (``store.columns([...])``).

    Parameters
    ----------
    publication : Publication
        Of a stamp_store.
    rows : (n,) int64 array, optional
        Logical numbers, in the order of the dataset's own indices; by default all rows.

    Raises
    ------
    IndexError
        If a row is outside the store.
    """

    def __init__(self, publication: Publication, rows: Logical | None = None) -> None:
        self.store = StampStore.open(publication)
        chosen = np.arange(self.store.n_rows) if rows is None else rows
        self.rows: Logical = np.asarray(chosen, dtype=np.int64)
        self.store.places_of(self.rows)
        self._labels = self.store.columns(["label"])["label"].to_numpy().astype(np.int64)[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Sample:
        """Return one row."""
        sample: Sample = self.__getitems__([place])[0]
        return sample

    def __getitems__(self, places: Sequence[int]) -> Samples:
        """Return many rows by one gather."""
        chosen = np.asarray(places, dtype=np.int64)
        logical = self.rows[chosen]
        rows = self.store.take(logical)
        return Samples(
            {
                "pixels": torch.from_numpy(rows.pixels),
                "median": torch.from_numpy(rows.median),
                "mad": torch.from_numpy(rows.mad),
                "label": torch.from_numpy(self._labels[chosen]),
                "logical": torch.from_numpy(logical),
            }
        )

    def __getstate__(self) -> dict[str, Any]:
        """Say what a spawned worker opens again; no pixel and no map goes through the pipe."""
        publication = self.store.publication
        return {"folder": str(publication.folder.absolute()), "version": publication.version, "rows": self.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the same version again.

        Raises
        ------
        StorageError
            If another version stands in its folder.
        """
        publication = Publication.open(Path(state["folder"]))
        if publication.version != state["version"]:
            raise StorageError(
                f"{publication.folder} holds version {publication.version}, the dataset was made of {state['version']}."
            )
        StampDataset.__init__(self, publication, state["rows"])
