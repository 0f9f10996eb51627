"""Text of an answer while its tokens come in: whole characters only, stop texts cut off before they are shown."""

import codecs
from collections.abc import Sequence


class TextAssembler:
    """Feed token bytes, get the text that is safe to show; `stopped` says that a stop text was found.

    Bytes that can never become a character turn into U+FFFD; a character that is still incomplete when the
    answer ends is dropped.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = tuple(stop)
        self._held = ""  # could be the start of a stop text
        self._shown: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was returned so far."""
        return "".join(self._shown)

    def feed(self, token_bytes: bytes) -> str:
        """Return the new text that no later token can take back."""
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(token_bytes)
        found = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = text[: min(found)], ""
        else:
            cut = len(text) - self._length_to_hold(text)
            text, self._held = text[:cut], text[cut:]
        return self._show(text)

    def finish(self) -> str:
        """Return what was held back for a stop text that never came."""
        text, self._held = self._held, ""
        return self._show(text)

    def _show(self, text: str) -> str:
        if text:
            self._shown.append(text)
        return text

    def _length_to_hold(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop text."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
