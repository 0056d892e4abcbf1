"""All questions together: what the asset shortcut_gates publishes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lens_pipeline.audits.askings import ASKED, Asking, settings_asked, with_standing
from lens_pipeline.audits.config import ShortcutGatesConfig
from lens_pipeline.audits.data_gates import data_gates
from lens_pipeline.audits.gate import Gate, gate_table
from lens_pipeline.audits.model_gates import Audited, ask_model
from lens_pipeline.contracts.catalogue import SHORTCUT_GATES
from lens_pipeline.evaluation.promotion import EARLIER
from lens_pipeline.storage.staging import Staging

EVIDENCE = "evidence.png"


@dataclass(frozen=True)
class GatesResult:
    """What was asked and answered; the picture is None where no evidence was mapped."""

    gates: list[Gate]
    evidence_png: bytes | None


def build_gates(
    config: ShortcutGatesConfig, audited: Audited, staging: Staging, earlier: Sequence[Asking]
) -> GatesResult:
    """Ask every question, and write the SHORTCUT_GATES table and ``evidence.png``.

    Parameters
    ----------
    earlier : sequence of Asking
        Of the same model, with other settings: their red answers stand until twice as many galaxies say otherwise.

    Raises
    ------
    PipelineError
        If injections that are rendered again aren't the stored ones, or the process that asks the model failed.
    """
    # The model is asked in a process of its own, beside which the stamps are looked at here.
    with ThreadPoolExecutor(1) as pool:
        of_stamps = pool.submit(data_gates, audited.stamps, audited.parent, n_stamps=config.n_stamps)
        answers = ask_model(audited, config)
        gates = with_standing([*of_stamps.result(), *answers.gates], config, earlier)
    staging.attributes.update({ASKED: settings_asked(config), EARLIER: [asking.version for asking in earlier]})
    staging.write_table(None, gate_table(gates), SHORTCUT_GATES)
    if answers.evidence_png is not None:
        staging.write_bytes(EVIDENCE, answers.evidence_png)
    return GatesResult(gates, answers.evidence_png)
