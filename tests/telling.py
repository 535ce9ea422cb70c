"""What a message to a user must tell, in whatever words: the field, the value, the limit, the remedy.

A fact is one word as it stands in the message, or several with spaces between them: `"spec.scaling minReplicas 5"`. Each must
stand there as a whole word, in any order and in either case: 4 is not told by 4096, `spec.model` not by `spec.model.digest`.
"""

from __future__ import annotations

import re

_NOT_WITHIN_A_WORD_BEFORE = r"(?<!\w)"
_NOT_WITHIN_A_NUMBER_BEFORE = r"(?<!\d[.,])(?<![(\s\[=:]-)(?<!^-)"
_NOT_WITHIN_A_WORD_AFTER = r"(?![.,/]?\w)"


def telling(*facts: str) -> str:
    """The pattern of a message that tells all of that, for `pytest.raises(…, match=…)`."""
    return r"(?is)\A" + "".join(f"(?=.*{_word(word)})" for fact in facts for word in fact.split())


def untold(message: str, *facts: str) -> list[str]:
    """Those words of the facts that the message does not tell."""
    return [word for fact in facts for word in fact.split() if not re.search(_word(word), message, re.IGNORECASE)]


def assert_tells(message: str, *facts: str) -> None:
    """Fails where something is not told, with the whole message."""
    if missing := untold(message, *facts):
        raise AssertionError(f"not told: {' '.join(missing)}; told: {message!r}")


class Telling:
    """Equals each message that tells all of that: for messages within rows and objects that are compared whole."""

    def __init__(self, *facts: str) -> None:
        self._facts = facts

    def __eq__(self, message: object) -> bool:
        return isinstance(message, str) and not untold(message, *self._facts)

    def __hash__(self) -> int:
        return hash(self._facts)

    def __repr__(self) -> str:
        return f"Telling({', '.join(map(repr, self._facts))})"


def _word(word: str) -> str:
    before = _NOT_WITHIN_A_WORD_BEFORE if re.match(r"\w", word) else ""
    before += _NOT_WITHIN_A_NUMBER_BEFORE if re.match(r"\d", word) else ""
    return before + re.escape(word) + (_NOT_WITHIN_A_WORD_AFTER if re.search(r"\w$", word) else "")
