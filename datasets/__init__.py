"""The data sets. Importing the package registers every module directly in it, so a new data set is one new file."""

import importlib
import pkgutil

COMMANDS = {"prepare", "check"}  # run as `python -m datasets.prepare`; importing them first would make Python warn

for module in pkgutil.iter_modules(__path__):
    if not module.ispkg and module.name not in COMMANDS:
        importlib.import_module(f"{__name__}.{module.name}")
