"""What is said of DESI's real targets is counted from them, and not where they aren't there."""

from pathlib import Path

import pytest

from reliability.real_targets import SUBJECT
from reliability.subject import take


@pytest.mark.real_data
def test_the_cuts_of_2020_give_every_bit_and_the_arcs_that_they_lose_are_told(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENS_PIPELINE_REAL_DATA", str(real_data))
    found = SUBJECT.case(0)
    assert (found.problem, found.n) == (None, 1_001)
    assert found.counts["LRG bits that lrg_dr8_2020_colours gives"] == 182
    assert [round(share) for share in found.largest.values()] == [54, 42]


def test_without_the_real_targets_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENS_PIPELINE_REAL_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr("reliability.subject.RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="set LENS_PIPELINE_REAL_DATA"):
        take(SUBJECT)
    assert '"n": 0' in (tmp_path / "real_targets.json").read_text()
