"""The registries: names to classes, near-name hints, and the contract that each one states."""

import pytest

from engine import DATASET_REGISTRY, EVALUATOR_REGISTRY, TRAINER_REGISTRY, Registry
from engine.registry import near_name


@pytest.fixture
def registry():
    return Registry("trainer", "Called with cfg.")


def new_class(name, module="a"):
    return type(name, (), {"__module__": module})


def test_register_by_the_class_name_or_another_one(registry):
    @registry.register()
    class CoOp:
        pass

    @registry.register(name="Other")
    class Another:
        pass

    @registry.register
    class Bare:
        pass

    assert (registry.get("CoOp"), registry.get("Other"), registry.get("Bare")) == (CoOp, Another, Bare)
    assert registry.registered_names() == ["Bare", "CoOp", "Other"]
    assert "CoOp" in registry and "Another" not in registry


def test_an_unknown_name_is_refused_with_the_names_and_the_nearest(registry):
    with pytest.raises(KeyError, match="none registered; import the package"):
        registry.get("CoOp")
    registry.register(new_class("CoOp"))
    registry.register(new_class("ZeroshotCLIP"))
    with pytest.raises(KeyError) as error:
        registry.get("coop")
    assert error.value.args[0] == "The trainer is 'coop', expected one of: CoOp, ZeroshotCLIP. Did you mean CoOp?"


def test_a_name_of_another_class_is_taken(registry):
    registry.register(new_class("CoOp"))
    with pytest.raises(KeyError, match=r"The trainer name CoOp is taken by a\.CoOp\. Rename b\.CoOp\."):
        registry.register(new_class("CoOp", "b"))


def test_the_same_class_again_replaces_it(registry):
    """A module that is imported anew, as in a notebook, registers its class anew."""
    registry.register(new_class("CoOp"))
    again = registry.register(new_class("CoOp"))
    assert registry.get("CoOp") is again


def test_in_an_overlay_names_are_free_until_it_ends(registry):
    under, over = registry.register(new_class("A")), new_class("A", "b")
    with registry.overlay():
        registry.register(over)
        assert registry.get("A") is over
        assert registry.layers() == [{"A": under}, {"A": over}]
    assert registry.get("A") is under


@pytest.mark.parametrize(
    ("name", "hint"),
    [("leopards", " Did you mean leopard?"), ("LEOPARD", " Did you mean leopard?"), ("chair", ""), ("", "")],
)
def test_near_name_only_when_close(name, hint):
    assert near_name(name, ["leopard", "face"]) == hint


@pytest.mark.parametrize("registry", [TRAINER_REGISTRY, DATASET_REGISTRY, EVALUATOR_REGISTRY], ids=lambda r: r.name)
def test_each_registry_states_its_contract(registry):
    assert "Called with" in registry.__doc__
    assert "must" in registry.__doc__
