"""The distribution's version and the code version of each stage (part of a stage's fingerprint)."""

__version__ = "0.1.0"

# Raise a stage's number when the same config and inputs would now give other outputs.
STAGE_CODE: dict[str, int] = {
    "dataset": 1,
    "tokenizer": 1,
    "base": 1,
    "sft": 1,
    "fit": 1,
    "eval": 1,
    "gate": 1,
    "report": 1,
}
