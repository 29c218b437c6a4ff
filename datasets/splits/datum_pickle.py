"""Pickled few-shot items, as the original keeps them in split_fewshot/, read without running anything.

A pickle is a program for a small machine, whose opcodes build values and may import and call what the file names. The
standard library splits it into opcodes. Those that plain values and Dassl's Datum need are followed here, without any
import or call: a Datum becomes a Record of its fields. Any other opcode ends the reading, and so does any other name.
"""

import pickletools
from typing import Any

from engine.text import printable

BEGINNINGS = (b"\x80", b"}", b"(")  # a protocol from 2 on; a dictionary in protocol 1, in protocol 0
MODULES = ("dassl.data.datasets.base_dataset", "dassl.data.datasets")  # where Dassl has its Datum
LARGEST = 2**22  # bytes; 16 images of each of ImageNet's 1,000 classes take about half of it
VALUES = ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2")
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
DATUM = object()  # stands for Dassl's class


class Record:
    """A Datum that was read."""

    def __init__(self):
        self.fields: dict[str, str | int] = {}


def read_datum_pickle(data: bytes) -> Any:
    """Returns what a pickle of protocol 2 to 5 holds: dictionaries, lists, texts, whole numbers and Records.

    Lists may hold each other; do not print what is none of the types that you look for.

    Raises:
        ValueError: If it is too large, is not whole, or asks for anything else.
    """
    if len(data) > LARGEST:
        raise ValueError(f"it has {len(data):,} bytes; at most {LARGEST:,} are read")
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.follow(opcode.name, argument)
    except (AttributeError, IndexError, KeyError, TypeError) as error:  # an opcode finds what it is not made for
        raise ValueError(f"its opcodes do not fit together ({type(error).__name__})") from error
    raise ValueError("it does not end")


class _Machine:
    def __init__(self):
        self.stack: list[Any] = []
        self.marks: list[int] = []  # how high the stack was
        self.memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """Does what one opcode asks for."""
        stack = self.stack
        if name in VALUES:
            stack.append(argument)
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("APPEND", "APPENDS"):
            values = self.pop_values(name)
            stack[-1].extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = self.pop_values(name)
            stack[-1].update(zip(values[::2], values[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_datum(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_datum(*stack[-2:])]
        elif name == "NEWOBJ":
            if not (stack[-2] is DATUM and stack[-1] == ()):
                raise ValueError("it makes a Datum in another way than Dassl does")
            stack[-2:] = [Record()]
        elif name == "BUILD":
            self.set_fields(stack.pop())
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the opcode {name}, which items do not need")

    def pop_values(self, name: str) -> list[Any]:
        """Takes what lies above the last mark, or what an opcode without a mark adds, from the stack."""
        above = self.marks.pop() if name.endswith("S") else len(self.stack) - (2 if name == "SETITEM" else 1)
        values, self.stack[above:] = self.stack[above:], []
        return values

    def set_fields(self, fields: Any) -> None:
        record = self.stack[-1]
        if type(record) is not Record or type(fields) is not dict:
            raise ValueError("it sets the state of what is no Datum")
        if not all(type(value) in (str, int) for value in fields.values()):
            raise ValueError("a Datum has a field that is neither a text nor a whole number")
        record.fields = dict(fields)  # the file may go on to change its own


def _datum(module: Any, name: Any) -> object:
    if name == "Datum" and module in MODULES:
        return DATUM
    named = f"{module}.{name}" if type(module) is type(name) is str else "what has no name"
    raise ValueError(f"it asks for {printable(named)}, and only Dassl's Datum is read")
