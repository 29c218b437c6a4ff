"""No file runs code, whoever made it: each is refused with what is wrong with it, or passed over."""

import pytest

from tests.robustness.hostile_files import FILES, is_refused, meet

OFTEN = [
    name
    for name in FILES
    if "checkpoint" not in name
    or name.endswith(("os.system", "setstate", "protocol 4", "pickle", "program", "bomb", "device"))
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.robust) for n in FILES])
def test_it_is_refused(tmp_path, name):
    hostile = FILES[name]
    said, was_made, is_live = meet(hostile, tmp_path)
    assert is_refused(hostile, said, was_made), said
    assert is_live == (hostile.trust is not None), "the test's own file does not do what it is for"
