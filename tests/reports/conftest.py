"""What the tests of the commands share."""

import pytest


@pytest.fixture
def call(capsys):
    """Calls a command's main with any arguments; returns its exit code and what it prints to stdout and stderr."""

    def call(main, *args):
        code = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
