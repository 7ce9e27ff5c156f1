"""The error tree: codes, sentences, and the way between processes."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from zoomiqa import errors


def tree(kind=errors.ZoomIQAError):
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def test_codes_are_unique_and_drawn_in_the_module():
    kinds = list(tree())
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))
    for kind in kinds:
        if kind.__module__ == "zoomiqa.errors":
            assert kind.__name__ in errors.__doc__
            assert kind.summary


def test_a_message_says_what_the_value_and_what_to_do():
    error = errors.OptionInvalid("rounds must lie in 1..8", 9, "two is the paper's figure")
    assert str(error) == "rounds must lie in 1..8, got 9; two is the paper's figure"
    assert error.to_dict() == {"code": "ZIQ-501", "type": "OptionInvalid", "message": str(error)}


def test_a_long_value_is_cut():
    assert len(str(errors.OptionInvalid("x", "v" * 10_000, "y"))) < 200


@given(
    st.sampled_from(list(tree())),
    st.text(max_size=20),
    st.none() | st.integers() | st.text(max_size=5),
    st.text(max_size=9),
)
def test_an_error_survives_pickling(kind, what, value, fix):
    error = kind(what, value, fix)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
