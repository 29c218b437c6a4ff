"""Classes by name."""

import engine


class Registry(engine.Registry):
    """Classes by name."""

    def __init__(self, name: str):
        super().__init__(name, contract="")
