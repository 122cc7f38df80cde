"""Settings: a wrong value is one line that names the setting and the remedy."""

import base64

import pytest
from django.core.exceptions import ImproperlyConfigured

from llmchat.lib.env import EnvReader

KEY = base64.b64encode(bytes(32)).decode()
KEY_OF_THE_OTHER_ALPHABET = base64.urlsafe_b64encode(b"\xff" * 32).decode()


@pytest.fixture
def reader(monkeypatch, tmp_path):
    monkeypatch.delenv("X", raising=False)
    return EnvReader()


def test_an_unset_or_empty_variable_gives_the_default(reader, monkeypatch):
    for value in (None, "", "  "):
        if value is not None:
            monkeypatch.setenv("X", value)
        assert reader.text("X", "a") == "a"
        assert reader.optional("X") is None
        assert reader.integer("X", 3) == 3
        assert reader.seconds("X", 1.5) == 1.5
        assert reader.boolean("X", default=True) is True
        assert reader.choice("X", "a", of={"a", "b"}) == "a"
        assert reader.items("X", ["a"]) == ["a"]
        assert reader.url("X", schemes={"http"}) is None


@pytest.mark.parametrize("word", ["1", "true", "YES", "on"])
def test_words_for_true(reader, monkeypatch, word):
    monkeypatch.setenv("X", word)
    assert reader.boolean("X", default=False) is True


def test_items_are_divided_by_commas(reader, monkeypatch):
    monkeypatch.setenv("X", " a, b ,,c")
    assert reader.items("X") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("read", "value", "line"),
    [
        (lambda r: r.integer("X", 3), "abc", "X='abc' is not a whole number. Set it to one, such as 3."),
        (
            lambda r: r.integer("X", 3, minimum=1, maximum=9),
            "0",
            "X=0 is out of range. Set it to a number from 1 to 9.",
        ),
        (lambda r: r.seconds("X", 3), "soon", "X='soon' is not a number of seconds. Set it to one, such as 3."),
        (lambda r: r.seconds("X", 3), "inf", "X=inf is out of range. Set it to a number of seconds from 0.001 up."),
        (lambda r: r.seconds("X", 3), "nan", "X=nan is out of range. Set it to a number of seconds from 0.001 up."),
        (
            lambda r: r.boolean("X", default=True),
            "maybe",
            "X='maybe' is neither true nor false. Set it to 'true' or 'false'.",
        ),
        (lambda r: r.choice("X", "a", of={"a", "b"}), "c", "X='c' is not known. Set it to one of: a, b."),
        (
            lambda r: r.url("X", schemes={"redis", "rediss"}),
            "secret@nowhere",
            "X is not an address that can be used. Set it to one that begins with redis:// or rediss://.",
        ),
        (
            lambda r: r.keys("X"),
            f"{KEY},c2VjcmV0",
            "X: key number 2 is not 32 bytes in base64. Make one with: openssl rand -base64 32",
        ),
        (
            lambda r: r.keys("X"),
            "secret, no base64",
            "X: key number 1 is not 32 bytes in base64. Make one with: openssl rand -base64 32",
        ),
        (lambda r: r.keys("X"), f"{KEY},{KEY}", "X: key number 2 is there twice. Remove one of the two."),
    ],
)
def test_a_wrong_value_is_one_line_with_the_remedy(reader, monkeypatch, read, value, line):
    monkeypatch.setenv("X", value)
    with pytest.raises(ImproperlyConfigured) as raised:
        read(reader)
    assert str(raised.value) == line


def test_keys_are_32_bytes_in_base64_of_either_alphabet(reader, monkeypatch):
    monkeypatch.setenv("X", f"{KEY}, {KEY_OF_THE_OTHER_ALPHABET}")
    assert reader.keys("X") == (bytes(32), b"\xff" * 32)
    monkeypatch.setenv("X", "")
    assert reader.keys("X") == ()


def test_a_password_in_an_address_is_not_echoed(reader, monkeypatch):
    monkeypatch.setenv("X", "postgres://user:pa55word@host:notaport/name")
    with pytest.raises(ImproperlyConfigured) as raised:
        reader.database("X", "sqlite:///x")
    assert "pa55word" not in str(raised.value)


def test_the_environment_beats_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMCHAT_TEST_A", "process")
    monkeypatch.delenv("LLMCHAT_TEST_B", raising=False)
    dotenv = tmp_path / ".env"
    dotenv.write_text("LLMCHAT_TEST_A=file\nLLMCHAT_TEST_B=file\n")
    monkeypatch.setenv("LLMCHAT_TEST_B", "")
    monkeypatch.delenv("LLMCHAT_TEST_B")
    reader = EnvReader(dotenv=dotenv)
    assert (reader.text("LLMCHAT_TEST_A"), reader.text("LLMCHAT_TEST_B")) == ("process", "file")
    monkeypatch.delenv("LLMCHAT_TEST_B")
