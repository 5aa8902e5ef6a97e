"""Patterns of names are compared right, and without a regular expression."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presque import globs, names
from presque.tokens import Layer, Outside, Rules

NAMES = st.text("ab", max_size=12)
PATTERNS = st.text("ab*?", max_size=12)


@settings(max_examples=1000)
@given(NAMES, PATTERNS)
def test_a_pattern_fits_what_the_shell_would_match(name: str, pattern: str) -> None:
    assert globs.fits(name, pattern) == fnmatchcase(name, pattern)


@settings(max_examples=500)
@given(NAMES, st.lists(PATTERNS, max_size=5))
def test_some_patterns_match_what_one_of_them_fits(name: str, patterns: list[str]) -> None:
    assert globs.Patterns(patterns).match(name) == any(fnmatchcase(name, one) for one in patterns)


@pytest.mark.parametrize("patterns", [["*"], ["**"], ["a", "***"]])
def test_some_patterns_know_that_one_of_them_fits_everything(patterns: list[str]) -> None:
    assert globs.Patterns(patterns).all
    assert not globs.Patterns(["a*", "?", "*a", ""]).all


@pytest.mark.parametrize("shape", ["a*", "*a", "?a", "a?*"])
def test_no_pattern_is_compiled_whoever_brings_it(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To compile one of 128 characters takes a millisecond, and one request can bring 128 of them."""
    patterns = [f"{shape * (120 // len(shape))}{number:02}" for number in range(64)]
    compiled: list[str] = []
    compile_really = re.compile

    def counting(text: str, flags: int = 0) -> re.Pattern[str]:
        compiled.append(text)
        return compile_really(text, flags)

    monkeypatch.setattr(re, "compile", counting)

    assert not Rules(f"push:{pattern}" for pattern in patterns).cover("push", "mail")
    assert not Layer.of_caveat(f"allow=push:{patterns[0]}").allows("push", "mail")
    assert not names.queue_list(",".join(patterns)).matches("mail")

    assert not compiled


def test_what_a_token_rules_out_weighs_as_much_as_its_rules() -> None:
    layer = Layer(allow=Rules(["read:a*", "read:b*"]), deny=Rules(["read:c*"]))
    wanted = names.QueueList(("*", "b"), ("c*", Outside("read", (layer, layer))))
    assert wanted.excluding == 1 + 2 * 3
    assert wanted.weight == 2 + 1 + 2 * 3
