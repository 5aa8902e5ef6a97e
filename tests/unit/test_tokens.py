"""Access tokens as texts."""

from __future__ import annotations

import base64
import hmac
import math

import pytest

from presque import tokens


def text_of(id: str, caveats: tuple[str, ...], key: bytes) -> str:
    """A narrowed token, written by hand."""
    parts = ("\n".join(caveats).encode(), key)
    packed = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts]
    return f"prq_{id}.{packed[0]}.{packed[1]}"


@pytest.mark.parametrize("expires", [math.nan, math.inf, -math.inf, -1, 1e12, 1e300])
def test_a_moment_that_is_none_makes_no_token(expires: float) -> None:
    _, token, _ = tokens.make()
    with pytest.raises(tokens.BadToken, match="`expires` should be seconds since 1970"):
        tokens.narrow(token, expires=expires)


def test_no_condition_can_be_taken_away_moved_or_written_otherwise() -> None:
    id, token, key = tokens.make()
    narrowed = tokens.read(
        tokens.narrow(tokens.narrow(token, allow=["push:a*"]), deny=["push:ab"], expires=9)
    )
    first, *rest = narrowed.caveats
    assert narrowed.proves(key)
    for caveats in (
        (first,), tuple(rest), (*rest, first), narrowed.caveats[:-1], (*narrowed.caveats, ""),
        (first.upper(), *rest), (first + " ", *rest), (first, first, *rest),
    ):  # fmt: skip
        assert not tokens.read(text_of(id, caveats, narrowed.proof)).proves(key), caveats


@pytest.mark.parametrize(
    "caveat",
    [
        " ", "allow=", "deny=", "allow=push:", "allow=push:a,", "allow=push:[a]", "allow=push:a\\",
        "Allow=push:a", "allow=push:\u0410", "allow=push:a ", "expires=-1", "expires=NaN", "expires=1e9",
        "expires= 9", "expires=\u0669", "expires=9999999999999", "namespace=", "namespace=../x", "session=1",
        "session", "job=read a 1", "job=read a 1 -1", "job=write a 1 1", "source=", "source=here",
        "anything=else",
    ],
)  # fmt: skip
def test_a_condition_that_is_not_understood_makes_the_token_worthless(caveat: str) -> None:
    """Anybody who holds a token can add one by hand."""
    id, token, key = tokens.make()
    proof = tokens.read(token).proof
    made = tokens.read(text_of(id, (caveat,), hmac.digest(proof, caveat.encode(), "sha256")))
    assert made.proves(key)
    with pytest.raises(tokens.BadToken):
        tokens.Layer.of_caveat(caveat)


@pytest.mark.parametrize("written", ["::ffff:10.0.0.0/104", "::FFFF:0A00:0/104", "10.0.0.0/8"])
def test_a_network_of_ipv4_may_be_written_as_part_of_ipv6(written: str) -> None:
    layer = tokens.Layer(sources=tokens.networks([written]))
    assert all(map(layer.takes_from, ("10.1.2.3", "::ffff:10.1.2.3")))
    assert not any(map(layer.takes_from, ("11.1.2.3", "::ffff:11.1.2.3", "::1", "2001:db8::a00:1", "")))


@pytest.mark.parametrize("written", ["::/0", "::fffe:0:0/95", "::/95"])
def test_a_network_of_ipv6_holds_no_address_of_ipv4(written: str) -> None:
    layer = tokens.Layer(sources=tokens.networks([written]))
    assert not layer.takes_from("10.1.2.3")
    assert layer.takes_from("::1") == (written != "::fffe:0:0/95")


@pytest.mark.parametrize(
    "rest", ["", "_", "_Secret-Part", "_" + "s" * 43, "_" + "s" * 60, ".Y2F2", " copied", "\n"]
)
def test_of_what_is_left_of_a_token_only_its_id_is_sent(rest: str) -> None:
    assert tokens.id_of(f"prq_k3vq7xw2np{rest}") == "k3vq7xw2np"
    assert tokens.id_of("k3vq7xw2np") == "k3vq7xw2np"
