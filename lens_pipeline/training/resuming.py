"""What ranks do before they go on from a checkpoint: agree on it, and bring ledgers and sums to where it was taken."""

from dataclasses import replace

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.stamps.ledger import Ledger
from lens_pipeline.training.checkpoint import Checkpoint, Progress
from lens_pipeline.training.figures import EpochSums
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.world import World


def agree_on(checkpoint: Checkpoint | None, folder: RunFolder, world: World) -> None:
    """See that all ranks found the same newest checkpoint.

    Raises
    ------
    TrainingError
        If they did not.
    """
    step = -1 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))
    found = {int(one[0]) for one in world.gather([float(step)])}
    if len(found) > 1:
        raise TrainingError(f"the ranks found different newest checkpoints ({sorted(found)}) in {folder.path}.")


def cut_back_ledgers(own: Ledger, progress: Progress, folder: RunFolder, world: World, *, n_rows: int) -> None:
    """Forget in every ledger what came after the checkpoint; rank 0 sees to those of ranks that are no more.

    Raises
    ------
    TrainingError
        If a ledger then has another number of steps than the checkpoint counts on.
    """
    known = {*folder.ledgers(), *range(len(progress.ledgers))}
    former = known - {*range(world.size)} if world.first else set()
    for rank in [world.rank, *sorted(former)]:
        ledger = own if rank == world.rank else Ledger(folder.ledger(rank), n_rows=n_rows)
        ledger.cut_back_to(progress.epoch, progress.step)
        counted = dict(enumerate(progress.ledgers)).get(rank, 0)
        if ledger.n_steps != counted:
            raise TrainingError(
                f"{ledger.path} records {ledger.n_steps:,} steps and the checkpoint counts on {counted:,}: which rows "
                "reached the model can't be told any more. Remove the run's folder and train again."
            )
        if rank != world.rank:
            ledger.close()


def earlier_sums(progress: Progress, world: World) -> EpochSums:
    """Take up what the epoch had summed before; with another number of ranks, rank 0 takes what was every rank's own."""
    partial = progress.partial
    if not partial or len(partial) == world.size:
        return EpochSums(*partial[world.rank]) if partial else EpochSums()
    ranks = [EpochSums(*one) for one in partial]
    return replace(
        ranks[0],
        loss=sum(one.loss for one in ranks) if world.first else 0.0,
        rows=sum(one.rows for one in ranks) if world.first else 0.0,
    )
