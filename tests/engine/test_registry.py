"""The registries: names to classes, near-name hints, and the contract that each one states."""

import pytest

from engine import DATASET_REGISTRY, EVALUATOR_REGISTRY, TRAINER_REGISTRY, Registry
from engine.registry import near_name


@pytest.fixture
def registry():
    return Registry("trainer", "Called with cfg.")


def test_register_by_class_name_and_by_given_name(registry):
    @registry.register()
    class CoOp:
        pass

    @registry.register(name="Other")
    class Another:
        pass

    assert registry.get("CoOp") is CoOp
    assert registry.get("Other") is Another
    assert registry.registered_names() == ["CoOp", "Other"]
    assert "CoOp" in registry and "Another" not in registry


def test_decorator_without_call(registry):
    @registry.register
    class CoOp:
        pass

    assert registry.get("CoOp") is CoOp


def test_unknown_name_lists_the_names_and_the_nearest(registry):
    registry.register(type("CoOp", (), {}))
    registry.register(type("ZeroshotCLIP", (), {}))
    with pytest.raises(KeyError) as error:
        registry.get("coop")
    assert error.value.args[0] == ("The trainer is 'coop', expected one of: CoOp, ZeroshotCLIP. Did you mean CoOp?")
    with pytest.raises(KeyError) as error:
        registry.get("Resnet")
    assert "Did you mean" not in error.value.args[0]


def test_unknown_name_in_an_empty_registry(registry):
    with pytest.raises(KeyError, match="none registered: import the package"):
        registry.get("CoOp")


def test_name_taken_by_another_class(registry):
    registry.register(type("CoOp", (), {"__module__": "a"}))
    with pytest.raises(
        KeyError, match=r"trainer name CoOp is taken by a\.CoOp, expected a name of its own for b\.CoOp"
    ):
        registry.register(type("CoOp", (), {"__module__": "b"}))


def test_the_same_class_again_replaces_it(registry):
    """A module that is imported anew, as in a notebook, registers its class anew."""
    registry.register(type("CoOp", (), {"__module__": "a"}))
    again = registry.register(type("CoOp", (), {"__module__": "a"}))
    assert registry.get("CoOp") is again


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
