"""What a person wants to see of a store that was just made. None of it is part of the version."""

import pyarrow as pa

from lens_pipeline.stamps.ingest import StoreResult
from lens_pipeline.stamps.reasons import Reason

_MOST_SEGMENTS = 100


def quarantine_by_reason(result: StoreResult) -> pa.Table:
    """Reason, rows, share of the rows read, and what the reason means; most frequent first."""
    meaning = {reason.value: reason.meaning for reason in Reason}
    listed = sorted(result.by_reason.items(), key=lambda item: (-item[1], item[0]))
    return pa.table(
        {
            "reason": pa.array([reason for reason, _ in listed], pa.string()),
            "rows": pa.array([count for _, count in listed], pa.int64()),
            "share": pa.array([count / result.n_in for _, count in listed], pa.float64()),
            "meaning": pa.array([meaning[reason] for reason, _ in listed], pa.string()),
        }
    )


def segment_sizes(result: StoreResult) -> pa.Table:
    """Segment, places, bytes and whether an earlier store made it; the first hundred."""
    shown = result.segments[:_MOST_SEGMENTS]
    return pa.table(
        {
            "segment": pa.array([segment.name for segment in shown], pa.string()),
            "places": pa.array([segment.n_places for segment in shown], pa.int64()),
            "MB": pa.array([segment.n_bytes / 1e6 for segment in shown], pa.float64()),
            "from": pa.array(["an earlier store" if segment.is_kept else "this run" for segment in shown], pa.string()),
        }
    )


def bytes_per_input_byte(result: StoreResult) -> float | None:
    """Bytes of the new segments over the compressed blobs decoded into them; None if nothing was decoded."""
    written = sum(segment.n_bytes for segment in result.segments if not segment.is_kept)
    return written / result.decoding.blob_bytes if result.decoding.blob_bytes else None
