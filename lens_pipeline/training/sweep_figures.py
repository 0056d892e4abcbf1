"""Pictures of a sweep: its history, which settings mattered, and every trial as a line through its settings."""

import io
import warnings
from collections.abc import Callable

import optuna
from optuna.trial import TrialState

_DPI = 110


def sweep_figures(study: optuna.Study, monitor: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Draw them.

    Returns
    -------
    dict, dict
        Name to PNG, and name to the reason why there is none.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization import matplotlib as drawing

    complete = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    kinds: dict[str, tuple[int, Callable[[], object]]] = {
        "history": (1, lambda: drawing.plot_optimization_history(study, target_name=monitor)),
        "importances": (
            2,
            lambda: drawing.plot_param_importances(
                study, evaluator=FanovaImportanceEvaluator(seed=1), target_name=f"{monitor} (fANOVA)"
            ),
        ),
        "parallel_coordinates": (1, lambda: drawing.plot_parallel_coordinate(study, target_name=monitor)),
    }
    drawn, absent = {}, {}
    for name, (needed, draw) in kinds.items():
        if complete < needed:
            absent[name] = f"{name}: {needed} trials that were trained to their end are needed, there are {complete}"
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                draw()
                figure = plt.gcf()
                figure.set_size_inches(8, 4.5)
                buffer = io.BytesIO()
                figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
                drawn[name] = buffer.getvalue()
        except (ValueError, RuntimeError) as error:
            # Importances of values that are all alike, for one.
            absent[name] = f"{name}: {error}"
        finally:
            plt.close("all")
    return drawn, absent
