"""Search labels with a regular expression, in time that grows linearly with them.

Python's `re` backtracks: ``(a+)+$`` on a label of 40 letters takes years, and a configuration may come from a stranger.
Patterns are therefore matched by RE2, which pyarrow contains. Where RE2 reads a pattern in another way than `re`, it is
rewritten here, or refused; what RE2 cannot do (look-around, backreferences) is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

#: What `re` takes for digits, letters and blanks, of any script; RE2's own classes are ASCII. As written inside [...].
_CLASSES = {"d": r"\p{Nd}", "w": r"_\p{L}\p{N}", "s": r"\t-\r\x1c-\x20\x{85}\p{Z}"}
_PIECE = re.compile(r"\\.|\[\^?\]?|\{,(?=\d*\})|.", re.DOTALL)
#: The flags of `re` that a pattern may have: IGNORECASE, MULTILINE, DOTALL.
_FLAGS = {2: "i", 8: "m", 16: "s"}


class PatternError(ValueError):
    """A pattern is not valid, or needs what RE2 cannot do."""


@dataclass(frozen=True)
class LabelPattern:
    """A regular expression, checked.

    Attributes
    ----------
    text
        The pattern as given.
    """

    text: str
    _re2: str
    _ignore_case: bool

    @classmethod
    def parse(cls, text: str, flags: int = 0, *, ignore_case: bool = False) -> LabelPattern:
        """Check a pattern of Python's `re` and its flags.

        Raises
        ------
        PatternError
            If it is not valid, or is one that RE2 cannot match as `re` does.
        """
        letters = "".join(letter for flag, letter in _FLAGS.items() if flags & flag)
        if flags & ~sum(_FLAGS):
            raise PatternError(
                f"flags = {flags} holds others than 2 (ignore case), 8 (multi-line) and 16 (dot matches all)"
            )
        pattern = cls(text, (f"(?{letters})" if letters else "") + _as_re2(text), ignore_case)
        pattern.search([""])  # compiles it
        return pattern

    def search(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        """Search each label, as ``re.search`` does.

        Returns
        -------
        Shape (n_labels,), bool.

        Raises
        ------
        PatternError
            If RE2 would find something else in these labels than `re`.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if re.search(r"(?<!\\)(\\\\)*\\[bB]", self._re2) and not all(label.isascii() for label in labels):
            raise PatternError(r"\b and \B cannot be used on labels with letters other than a to z")
        if "$" in self._re2 and any(label.endswith("\n") for label in labels):
            raise PatternError("$ cannot be used on labels that end with a line break")
        try:
            found = pc.match_substring_regex(
                pa.array(labels, pa.large_string()), self._re2, ignore_case=self._ignore_case
            )
        except (pa.ArrowInvalid, UnicodeEncodeError) as exc:
            raise PatternError(" ".join(str(exc).split())) from None
        return found.to_numpy(zero_copy_only=False)


def _as_re2(pattern: str) -> str:
    """Rewrite a pattern of `re` so that RE2 reads it in the same way."""
    written: list[str] = []
    in_class = False
    for match in _PIECE.finditer(pattern):
        piece = match[0]
        if piece[0] == "\\":
            piece = _escape(piece, in_class=in_class)
        elif in_class:
            in_class = piece[0] != "]"
            piece = piece.replace("[", r"\[")  # [[:alpha:]] has no meaning of its own in `re`
            if piece.endswith("]") and len(piece) > 1:
                in_class = False
        elif piece[0] == "[":
            in_class = True
            piece = piece.replace("]", r"\]")  # the first one in a class is one of its characters
        elif piece == "{,":
            piece = "{0,"
        written.append(piece)
    return "".join(written)


def _escape(piece: str, *, in_class: bool) -> str:
    letter = piece[1:]
    if letter.lower() in _CLASSES:
        characters = _CLASSES[letter.lower()]
        if not in_class:
            return f"[{'' if letter.islower() else '^'}{characters}]"
        if letter.islower():
            return characters
        raise PatternError(rf"[...\{letter}...] is not supported")
    if letter in {"b", "Z"}:
        return {"b": r"\x08" if in_class else r"\b", "Z": r"\z"}[letter]
    if letter.isdigit() and letter != "0":
        raise PatternError(f"backreferences such as \\{letter} are not supported")
    if letter.isascii() and letter.isalpha() and letter not in "ABafnrtvx":
        raise PatternError(f"\\{letter} is not a valid escape")
    return piece if letter.isascii() else letter
