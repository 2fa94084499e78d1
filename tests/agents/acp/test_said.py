"""What a new version of a message adds to what was said of it."""

from hypothesis import given
from hypothesis import strategies as st

from broker.agents.acp.said import Said

WORDS = st.lists(st.text(max_size=8), max_size=5)


@given(WORDS, st.text(max_size=8))
def test_the_rest_is_what_comes_after_all_that_was_said(chunks: list[str], more: str):
    said = Said()
    for chunk in chunks:
        said.add("m", chunk)
    assert said.rest("m", "".join(chunks) + more) == more


@given(WORDS, st.text(max_size=8))
def test_what_does_not_begin_with_it_goes_back_on_it(chunks: list[str], whole: str):
    said, spoken = Said(), "".join(chunks)
    for chunk in chunks:
        said.add("m", chunk)
    expected = whole.removeprefix(spoken) if whole.startswith(spoken) else None
    assert said.rest("m", whole) == expected
    assert said.rest("m", whole + "!") == "!"


def test_messages_are_told_apart():
    said = Said()
    said.add("m", "one")
    assert said.rest("n", "two") == "two"
