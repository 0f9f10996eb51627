"""Finds eval items in text: which rules call an item contaminated, and where it stands.

    index = ItemIndex([Item("gsm8k:1", "Janet's ducks lay 16 eggs ...", "18")])
    result = scan(index, [("doc-1", text), ...], workers=2)
    result.items["gsm8k:1"].prompt.tulu50_8, result.findings, result.hits("near", "prompt")

Linear in the documents and in the items, one pass, bounded memory. No torch. Not here: meaning (a paraphrase that keeps
few words is not found), and which pairs of data are compared (`data.honesty`).
"""

from picochat_trainer.data.contamination.index import ItemIndex
from picochat_trainer.data.contamination.measures import MEASURES, Measure, Name, Variant
from picochat_trainer.data.contamination.patterns import Item
from picochat_trainer.data.contamination.results import Finding, FindingKind, ItemResult, Measured, ScanResult
from picochat_trainer.data.contamination.scanning import scan

__all__ = [
    "MEASURES",
    "Finding",
    "FindingKind",
    "Item",
    "ItemIndex",
    "ItemResult",
    "Measure",
    "Measured",
    "Name",
    "ScanResult",
    "Variant",
    "scan",
]
