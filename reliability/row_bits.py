"""Whether a row's logits depend on the rows beside it, for every architecture, stamp size and layout, on this machine's CPU.

A case puts 16 rows into larger forward passes, at drawn places among other rows, and compares bits with the 16 alone.
"""

from itertools import product

import torch

from lens_pipeline.batches.loader import FORWARD_MULTIPLE
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.training.choices import Architecture, Normalization
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.models import build_model, spec_for
from reliability.subject import Case, Subject

_NORMALISED = [
    (architecture, normalization)
    for architecture in Architecture
    for normalization in (Normalization.batch, Normalization.group)
    if normalization is Normalization.batch or architecture.has_batchnorm
]
CASES = list(product(_NORMALISED, (48, 64), (torch.channels_last, torch.contiguous_format)))
MULTIPLES = (2, 3, 5)


def case(number: int) -> Case:
    """Compare the rows of one architecture, size and layout."""
    (architecture, normalization), size, layout = CASES[number]
    config = TrainingConfig.model_validate({"model": architecture, "normalization": normalization})
    torch.set_num_threads(1)
    torch.manual_seed(number)
    model = build_model(spec_for(config, DatasetContract(stamp_size=size))).eval()
    rows = torch.randn(FORWARD_MULTIPLE, 3, size, size)
    differing = 0
    with torch.inference_mode():
        alone = model(rows.contiguous(memory_format=layout))
        for multiple in MULTIPLES:
            others = 5 * torch.randn(multiple * FORWARD_MULTIPLE, 3, size, size)
            places = torch.randperm(len(others))[:FORWARD_MULTIPLE]
            others[places] = rows
            found = model(others.contiguous(memory_format=layout))[places]
            differing += int((found != alone).any(1).sum())
    what = f"{architecture.value}, {normalization.value}, {size} pixels, {layout}"
    return Case(
        problem=f"{differing} rows have other bits: {what}" if differing else None,
        n=len(MULTIPLES) * FORWARD_MULTIPLE,
    )


SUBJECT = Subject(
    name="row_bits",
    question="A row's logits have the same bits whatever rows stand beside it, in forward passes of a multiple of 16 rows.",
    unit="rows",
    goal=len(CASES) * len(MULTIPLES) * FORWARD_MULTIPLE,
    case=case,
    n_cases=len(CASES),
)
