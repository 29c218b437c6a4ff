"""Which options of a method make another run of it, and of one that somebody builds on it."""

from trainers.base import PromptTrainer
from trainers.coop import CoOp


class Own(PromptTrainer):
    node = "OWN"
    not_in_identity = ("TRAINER.OWN.N_THREADS",)  # its chunks draw anew


def test_a_plug_in_leaves_out_how_it_computes_under_its_own_node():
    class Other(CoOp):
        node = "OTHER"

    assert {"TRAINER.OTHER.CHUNK_ROWS", "TRAINER.OTHER.SHARD_CLASSES"} <= set(Other.not_in_identity)
    assert not [key for key in Other.not_in_identity if not key.startswith("TRAINER.OTHER.")]


def test_what_a_method_says_itself_counts_for_one_that_builds_on_it():
    class Heir(Own):
        pass

    assert Heir.not_in_identity == ("TRAINER.OWN.N_THREADS",)
