from __future__ import annotations

import inspect

from router.domain import errors
from router.domain.errors import (
    BadInputError,
    ConfigError,
    MotleyError,
    TraceError,
    UnknownNameError,
)


def test_the_tree_at_the_top_of_the_file_is_the_tree():
    drawn = {word for word in (errors.__doc__ or "").split() if word.endswith("Error")}
    defined = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    assert drawn == defined
    assert all(issubclass(getattr(errors, name), MotleyError) for name in defined)


def test_what_the_user_can_mend_is_bad_input():
    assert issubclass(ConfigError, BadInputError)
    assert issubclass(TraceError, BadInputError)


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_near_one():
    error = UnknownNameError("GPU", "a100", ["t4", "a100-80"])
    assert str(error) == "unknown GPU 'a100'. Did you mean 'a100-80'? Known: a100-80, t4."
    assert str(UnknownNameError("GPU", "tpu", [])) == "unknown GPU 'tpu'. Known: none."


def test_of_names_that_begin_alike_all_are_suggested_and_no_other_that_is_spelled_alike():
    """``h100`` is nearer to ``a100`` by its letters."""
    error = UnknownNameError("GPU", "a100", ["a100-40", "a100-80", "h100"])
    assert "Did you mean 'a100-40' or 'a100-80'? Known" in str(error)


def test_an_unknown_name_may_have_a_remedy():
    error = UnknownNameError("model", "mine", ["phi-4"], remedy="Describe it.")
    assert str(error) == "unknown model 'mine'. Known: phi-4. Describe it."


def test_a_trace_error_points_to_the_line():
    assert str(TraceError("bad", path="t.csv", line=7)) == "t.csv:7: bad"
    assert str(TraceError("bad", path="t.csv")) == "t.csv: bad"
    assert str(TraceError("bad")) == "bad"
