"""Published draws, pickles among them, that ask for code, for memory without end, or for what lies elsewhere."""

import copyreg
import os
import pickle

from tests.robustness.hostile.pickles import PAYLOADS

NAME = b"cdassl.data.datasets.base_dataset\nDatum\n"
EXTENSION = 240  # a number for private use


def in_draw(payload, protocol: int):
    """Returns what writes a draw that holds a payload beside its items."""
    return lambda canary: pickle.dumps({"train": [payload(canary)], "val": []}, protocol)


def by_hand(*opcodes: bytes):
    """Returns what writes opcodes in which CANARY stands for the canary, as a text."""

    def write(canary: str) -> bytes:
        text = canary.encode()
        return b"\x80\x02" + b"".join(opcodes).replace(b"CANARY", b"X" + len(text).to_bytes(4, "little") + text) + b"."

    return write


def by_an_extension(canary: str) -> bytes:
    """Asks by a number for what some library has registered, which pickle does not look up by name."""
    copyreg.add_extension(os.mkdir.__module__, "mkdir", EXTENSION)
    return by_hand(b"\x82", bytes([EXTENSION]), b"(CANARYtR")(canary)


def trusting(path):
    return pickle.loads(path.read_bytes())


TRAIN = b"}X\x05\x00\x00\x00train"
DOUBLED = b"]q\x00" + b"]h\x00ah\x00aq\x00" * 60  # a list of two lists of two lists ...: its repr would have no end
DRAWS = {  # how it is written, what is said, how it is trusted; None: it does not run code even so
    **{
        f"{name}, protocol {protocol}": (in_draw(payload, protocol), rf"asks for (\S+\.)?{asked}", trusting)
        for name, (payload, asked) in PAYLOADS.items()
        if name != "a schedule"  # of a checkpoint
        for protocol in (2, pickle.HIGHEST_PROTOCOL)
    },
    **{
        f"os.mkdir, protocol {protocol}": (in_draw(PAYLOADS["os.mkdir"][0], protocol), "opcode|posix.mkdir", trusting)
        for protocol in (0, 1)
    },
    "by an extension": (by_an_extension, "opcode EXT1", trusting),
    "an instance": (by_hand(b"(CANARYiposix\nmkdir\n"), "opcode INST", trusting),
    "an object": (by_hand(b"(cposix\nmkdir\nCANARYo"), r"asks for posix\.mkdir", trusting),
    "a persistent id": (by_hand(b"CANARYQ"), "opcode BINPERSID", None),
    "Datum is called": (by_hand(NAME, b"(CANARYtR"), "opcode TUPLE", None),
    "a Datum with arguments": (by_hand(NAME, b"]\x81"), "in another way than Dassl", None),
    "what Datum has": (by_hand(NAME.replace(b"Datum", b"Datum.__init__")), r"asks for dassl\S+\.Datum\.__init__", None),
    "the state of the class": (by_hand(NAME, b"}CANARYK\x00sb"), "what is no Datum", None),
    "the state of a list": (by_hand(b"]}b"), "what is no Datum", None),
    "a state of lists in lists": (by_hand(DOUBLED, NAME, b")\x81}CANARYh\x00sb"), "neither a text", None),
    "lists in lists": (by_hand(DOUBLED, TRAIN, b"h\x00s"), "does not say what its image is", None),
    "a list in itself": (by_hand(TRAIN, b"]q\x00h\x00as"), "does not say what its image is", None),
    "100,000 lists": (by_hand(b"]" * 100_000, b"a" * 99_999), "no lists for train", None),
    "a far place in the memo": (by_hand(b"]r\xff\xff\xff\xff"), "no lists for train", None),
    "a bytearray that is not there": (by_hand(b"\x96", (1 << 40).to_bytes(8, "little")), "bytearray8", None),
    "a text that is not there": (by_hand(b"\x8d", (1 << 60).to_bytes(8, "little")), "unicodestring8", None),
    "a path that leads out": (
        lambda canary: f'{{"train": {{"data": [{{"impath": "{canary}", "label": 0, "classname": ""}}]}}}}'.encode(),
        "end like no training item",
        None,
    ),
}
