"""No file runs code, whoever made it: each is refused with what is wrong with it, or passed over."""

import pytest

from tests.robustness.hostile_files import FILES, is_refused, meet


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_it_is_refused(tmp_path, name, caplog):
    hostile = FILES[name]
    said, was_made, is_live = meet(hostile, tmp_path)
    assert is_refused(hostile, said or "", was_made), said
    assert is_live == (hostile.trust is not None), "the test's own file does not do what it is for"


def test_there_are_enough():
    assert len(FILES) >= 15
