"""How a state looks: a word, a tone (colour) and a symbol, so that colour is never the only sign."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    word: str
    tone: str
    """CSS class: good, warn, bad, live, quiet."""
    icon: str
    """Symbol of `parts/icons.html`."""


_MARKS: dict[str, Mark] = {
    "queued": Mark("queued", "quiet", "ring"),
    "pending": Mark("pending", "quiet", "ring"),
    "running": Mark("running", "live", "play"),
    "unreachable": Mark("unreachable", "warn", "question"),
    "cancelling": Mark("cancelling", "warn", "stop"),
    "succeeded": Mark("succeeded", "good", "check"),
    "cached": Mark("cached", "good", "reuse"),
    "failed": Mark("failed", "bad", "cross"),
    "lost": Mark("lost", "bad", "question"),
    "cancelled": Mark("cancelled", "quiet", "stop"),
    "interrupted": Mark("interrupted", "warn", "stop"),
    "skipped": Mark("skipped", "quiet", "dash"),
    "approved": Mark("approved", "good", "check"),
    "warn": Mark("warn", "warn", "triangle"),
    "blocked": Mark("blocked", "bad", "cross"),
    "lapsed": Mark("verdict lapsed", "bad", "question"),
    "pass": Mark("pass", "good", "check"),
    "block": Mark("block", "bad", "cross"),
    "waived": Mark("block, waived", "warn", "triangle"),
    "ready": Mark("ready", "good", "check"),
    "caution": Mark("caution", "warn", "triangle"),
    "high": Mark("high", "bad", "cross"),
    "medium": Mark("medium", "warn", "triangle"),
    "low": Mark("low", "quiet", "dash"),
    "clean": Mark("clean", "good", "check"),
    "not_checked": Mark("not checked", "warn", "question"),
}


def mark_of(state: str) -> Mark:
    return _MARKS[state]
