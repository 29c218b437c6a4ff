"""What runs in one process share: a loaded CLIP, features in memory. Outside of `sharing` every run makes its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

STORES: ContextVar[dict[str, OrderedDict] | None] = ContextVar("STORES", default=None)


@contextmanager
def sharing(stores: dict[str, OrderedDict] | None = None) -> Iterator[None]:
    """Until its end, `shared` returns again what it has made, also earlier for the same `stores`."""
    token = STORES.set({} if stores is None else stores)
    try:
        yield
    finally:
        STORES.reset(token)


def shared(kind: str, key: Hashable, make: Callable[[], Any], *, keep: int = 1) -> Any:
    """Returns what `make` gives, the same object for the same kind and key within `sharing`; nobody may change it.

    Of each kind the `keep` objects used last are kept.
    """
    stores = STORES.get()
    if stores is None:
        return make()
    store = stores.setdefault(kind, OrderedDict())
    if key not in store:
        while len(store) >= keep:  # before it is made: two large things need not be there at once
            store.popitem(last=False)
        store[key] = make()
    store.move_to_end(key)
    return store[key]


def common_tensors(module: nn.Module, other: nn.Module) -> list[str]:
    """Returns the names of the module's parameters and buffers whose memory is also one's of the other module."""
    theirs = {value.untyped_storage().data_ptr() for value in chain(other.parameters(), other.buffers())}
    own = chain(module.named_parameters(), module.named_buffers())
    return [name for name, value in own if value.numel() and value.untyped_storage().data_ptr() in theirs]
