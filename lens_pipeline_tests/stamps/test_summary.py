"""The page of a store shows what was quarantined and why, its segments, and what its bytes came from."""

from lens_pipeline.stamps.summary import bytes_per_input_byte, quarantine_by_reason, segment_sizes
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.stamps.making import make_rows, make_store, publish_stamps


def test_reasons_are_listed_with_their_share_and_meaning_most_frequent_first(home: Home) -> None:
    rows = make_rows(40)
    rows[1]["stamp_npz"] = None
    for row in rows[2:5]:
        row["lens_model"] = "what?"
    _, result = make_store(home, publish_stamps(home, [rows]))
    first, second = quarantine_by_reason(result).to_pylist()
    assert (first["reason"], first["rows"], first["share"]) == ("unknown_label", 3, 3 / 40)
    assert (second["reason"], second["meaning"]) == ("null_blob", "there is no blob")


def test_segments_are_listed_with_their_size_and_whose_they_are_and_bytes_are_of_what_was_decoded(home: Home) -> None:
    rows = make_rows(40)
    first, _ = make_store(home, publish_stamps(home, [rows[:30]]))
    _, result = make_store(home, publish_stamps(home, [rows[:30], rows[30:]]), previous=first)
    kept, new = segment_sizes(result).to_pylist()
    assert (kept["segment"], kept["places"], kept["from"]) == ("segment-00000.f16", 30, "an earlier store")
    assert (new["segment"], new["places"], new["from"]) == ("segment-00001.f16", 10, "this run")
    assert new["MB"] == (4096 + 10 * (2 * 3 * 64 + 2 * 4 * 3)) / 1e6
    ratio = bytes_per_input_byte(result)
    assert ratio == 8176 / sum(len(row["stamp_npz"]) for row in rows[30:])
    _, nothing = make_store(home, publish_stamps(home, [rows[:30]]), previous=first)
    assert bytes_per_input_byte(nothing) is None
