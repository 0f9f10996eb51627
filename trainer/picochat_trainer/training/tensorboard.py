"""TensorBoard event files of a training, for whoever has TensorBoard open anyway; the report does not need them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from picochat_contract import layout
from picochat_contract.errors import Code, ContractError

from picochat_trainer.context import StageContext
from picochat_trainer.training.resume import Training

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Board(Protocol):
    """Takes named numbers of steps."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class NoBoard:
    """Where none is wanted."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard:
    """One event file per process."""

    def __init__(self, writer: "SummaryWriter") -> None:
        self._writer = writer

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def open_board(context: StageContext, training: Training, step: int) -> Board:
    """The board that the config asks for; it replaces what a training before it wrote behind `step`."""
    if not training.config.tensorboard or not context.is_main:
        return NoBoard()
    try:
        from torch.utils.tensorboard import SummaryWriter  # an extra
    except ImportError as error:
        raise ContractError(
            Code.MISSING_DEPENDENCY,
            f"tensorboard: true needs TensorBoard ({error}); pip install 'picochat[monitor]', or set it to false",
            param="tensorboard",
        ) from error
    folder = f"{training.resume.rpartition('/')[0]}/{layout.TENSORBOARD}"
    # Elsewhere others may write beside it and the user clears it: nothing that a finished stage is to be held to.
    is_elsewhere = folder in context.job.paths
    place = context.path(folder) if is_elsewhere else context.output(folder)
    return TensorBoard(SummaryWriter(str(place), purge_step=step + 1))
