"""TensorBoard's file of a run. No run ends because of it: where the disk is full, one warning tells."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class ScalarWriter(SummaryWriter):
    """TensorBoard's writer, which writes nothing any more after it once could not."""

    is_full = False

    def __init__(self, *arguments: Any, **options: Any):
        self._outer_hook, threading.excepthook = threading.excepthook, self._on_error_in_thread
        self._try(super().__init__, *arguments, **options)

    def add_scalar(self, *arguments: Any, **options: Any) -> None:
        self._try(super().add_scalar, *arguments, **options)

    def flush(self) -> None:
        self._try(super().flush)

    def close(self) -> None:
        self._try(super().close)
        threading.excepthook = self._outer_hook

    def _try(self, write: Callable[..., None], *arguments: Any, **options: Any) -> None:
        if self.is_full:
            return
        try:
            write(*arguments, **options)
        except OSError as error:
            self.is_full = True
            logger.warning(f"{self.log_dir} cannot be written ({error.strerror}): TensorBoard's curves end here")

    def _on_error_in_thread(self, raised: threading.ExceptHookArgs) -> None:
        """Says nothing of an error in the thread that writes: the next call raises it again."""
        is_its_thread = type(raised.thread).__module__.startswith("tensorboard.")
        if not (is_its_thread and isinstance(raised.exc_value, OSError)):
            self._outer_hook(raised)
