"""Reads what Weights & Biases keeps offline: a log in LevelDB's format, of protobuf records."""

import json
import struct
import time
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 32768  # bytes: of the file; of a block, over whose end no record's head reaches
WHOLE, LAST = 1, 4  # kinds of parts: after these a record is complete


def read_records(path: Path) -> list[Record]:
    """The records of a .wandb file."""
    data, position, parts, records = path.read_bytes(), HEADER, b"", []
    while position + 7 <= len(data):
        if (left := BLOCK - position % BLOCK) < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (WHOLE, LAST):
            records.append(Record.FromString(parts))
            parts = b""
    return records


def read_ended(path: Path, *, within_s: float = 30.0) -> list[Record]:
    """The records of a run that is ended: the library's own process writes the last of them in its time."""
    deadline_s = time.monotonic() + within_s
    while not of_kind(records := read_records(path), "exit") and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return records


def of_kind(records: list[Record], kind: str) -> list:
    """The contents of the records of a kind."""
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def history(records: list[Record]) -> list[dict[str, float]]:
    """What a run logged, without what the library adds."""
    rows = []
    for row in of_kind(records, "history"):
        items = {item.key or ".".join(item.nested_key): item.value_json for item in row.item}
        rows.append({key: json.loads(value) for key, value in items.items() if not key.startswith("_")})
    return rows
