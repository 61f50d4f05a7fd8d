"""The measurements of a run as event files for TensorBoard, an extra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from awpbench.errors import UsageError


class EventFiles:
    """Writes an epoch's numbers into event files, which TensorBoard shows: `tensorboard --logdir runs`.

    Raises UsageError where the package tensorboard is not installed; until the first epoch nothing is written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            mend = "Install it: pip install 'awpbench[tensorboard]', or leave --tensorboard out."
            raise UsageError("event files need the package tensorboard", mend) from None
        self._make, self._folder = SummaryWriter, folder
        self._writer: Any = None

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Write what a run reports of a finished epoch (`training.loop.Progress`), and flush it."""
        if self._writer is None:
            self._writer = self._make(str(self._folder))
        for tag, value in scalars(metrics):
            self._writer.add_scalar(tag, value, metrics["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()


def scalars(metrics: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    """Name every number of an epoch but its number: `loss`, `validation/robust`, `timing/attack_seconds`."""
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{within}{key}/")
        elif key not in ("epoch", "n") and isinstance(value, int | float):
            yield f"{within}{key}", float(value)
