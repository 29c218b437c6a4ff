"""Pickles of few-shot items, written by Python's own pickle of a class Datum that stands where Dassl's does."""

import json
import subprocess
import sys

MODULE = "dassl.data.datasets.base_dataset"
WRITE = """
import json, pickle, sys, types

module, protocols, draw = json.load(sys.stdin)
parts = module.split(".")
for i in range(len(parts)):
    name = ".".join(parts[: i + 1])
    sys.modules[name] = types.ModuleType(name)
exec('''
class Datum:
    def __init__(self, impath="", label=0, domain=0, classname=""):
        self._impath, self._label, self._domain, self._classname = impath, label, domain, classname
''', sys.modules[module].__dict__)
Datum = sys.modules[module].Datum
items = {
    split: [Datum(impath=impath, label=label, classname=classname) for impath, label, classname in rows]
    for split, rows in draw.items()
}
print(json.dumps([pickle.dumps(items, protocol=protocol).hex() for protocol in protocols]))
"""


def pickle_draw(draw: dict[str, list], protocols=(4,), module: str = MODULE) -> list[bytes]:
    """Returns a pickle of each protocol of split -> [(path, label, class name), ...]; another process writes them."""
    text = json.dumps([module, protocols, draw])
    done = subprocess.run([sys.executable, "-c", WRITE], input=text, capture_output=True, text=True, check=True)
    return [bytes.fromhex(content) for content in json.loads(done.stdout)]
