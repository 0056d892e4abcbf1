"""The page's table of npz forms is what the decoder does, and what it reads is numpy's bit for bit."""

import io

import numpy as np
import pytest

from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.stamps.reasons import Reason
from lens_pipeline_tests.stamps.making import SMALL
from lens_pipeline_tests.stamps.npz_variants import BEGIN, END, PAGE, SECTIONS, Variant, table

VARIANTS = [variant for variants in SECTIONS.values() for variant in variants]
# Reasons that are found in the row, not in its blob.
_ELSEWHERE = {
    Reason.CUTOUT_NOT_OK, Reason.NULL_KEY, Reason.DUPLICATE_KEY, Reason.UNKNOWN_LABEL, Reason.BAD_VALUE,
    Reason.NO_GALAXY, Reason.NULL_BLOB,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("variant", VARIANTS, ids=[variant.what for variant in VARIANTS])
def test_each_form_has_the_verdict_that_the_page_says(variant: Variant) -> None:
    verdict = decode_blob(variant.blob, SMALL)
    if variant.verdict != "read":
        assert not isinstance(verdict, Stamp)
        assert verdict.reason.value == variant.verdict
        return
    assert isinstance(verdict, Stamp)
    with np.load(io.BytesIO(variant.blob), allow_pickle=False) as archive:
        loaded = [archive[name] for name in SMALL.members]
    assert all(band.dtype in ("<f4", ">f4") for band in loaded)
    assert verdict.pixels.tobytes() == b"".join(band.astype("<f4").tobytes() for band in loaded)


def test_the_page_lists_these_forms_and_no_others() -> None:
    text = PAGE.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == table().strip()


def test_every_reason_of_a_blob_stands_in_the_table() -> None:
    assert {variant.verdict for variant in VARIANTS} == {reason.value for reason in set(Reason) - _ELSEWHERE} | {"read"}
