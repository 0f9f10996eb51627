"""The distribution's version and the code version of each stage (part of a stage's fingerprint)."""

__version__ = "0.1.0"

# Raise a stage's number when the same config and inputs would now give other outputs.
STAGE_CODE: dict[str, int] = {
    "dataset": 5,
    "honesty": 2,
    "preflight": 5,
    "tokenizer": 2,
    "base": 5,
    "sft": 5,
    "fit": 1,
    "eval": 2,
    "audit": 1,
    "gate": 3,
    "report": 2,
}
