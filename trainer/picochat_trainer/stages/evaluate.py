"""Eval: the SFT model on items that share nothing with its training rows.

Writes eval/eval_report.json (evidence for the gate) and eval/report.md.
"""

from picochat_contract import layout
from picochat_contract.configs import EvalConfig
from picochat_contract.evidence import EvalEvidence

from picochat_trainer.atomic import file_sha256, write_json, write_text
from picochat_trainer.context import StageContext
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.inference.engine import Engine
from picochat_trainer.scoring.clean import all_dirty, clean_subsets, read_dirty_lines
from picochat_trainer.scoring.report import report_json, report_markdown
from picochat_trainer.scoring.session import Session
from picochat_trainer.scoring.tally import eval_evidence, headline_scores
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tuning.rows import read_eval

NUM_SAMPLES = 3  # replies shown on the run's page


def run(context: StageContext, config: EvalConfig) -> dict[str, float]:
    items = read_eval(context.path(layout.EVAL))
    eval_sha256 = file_sha256(context.path(layout.EVAL))
    dirty = read_dirty_lines(context.path(layout.HONESTY), eval_sha256)
    corpus = CorpusStore(context.path) if any(item.require_corpus_support for item in items) else None
    checkpoint = context.path(layout.SFT_CHECKPOINT)
    tokenizer_path = context.path(layout.TOKENIZER)
    engine = Engine.load(checkpoint, tokenizer_path, context.device)
    # What was loaded, not what lies there: the engine may have fallen back to `.previous`.
    subject = engine.checkpoint_sha256 or file_sha256(checkpoint / layout.WEIGHTS)
    session = Session(
        engine=engine,
        tokenizer=Tokenizer.load(tokenizer_path),
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=config.seed,
    )
    judgements = session.run(
        items,
        corpus=None if corpus is None else (document.text for document in corpus.documents()),
        on_done=lambda done: context.events.progress(done, len(items), "items"),
    )
    evidence = eval_evidence(judgements, subject, dirty_lines=all_dirty(dirty))
    report = {
        **report_json(evidence, judgements, config.model_dump(mode="json")),
        "eval_sha256": eval_sha256,
        "clean_subsets": clean_subsets(judgements, dirty),
    }
    write_json(context.output(layout.EVAL_REPORT), report)
    write_text(
        context.output("eval/report.md"), report_markdown("Eval", headline_scores(evidence), judgements)
    )
    for judgement in judgements[:NUM_SAMPLES]:
        context.events.sample(f"eval line {judgement.line}", judgement.user, judgement.reply)
    context.events.log(
        "info", f"{evidence.overall.num_passed} of {evidence.overall.num_examples} eval items pass"
    )
    return _metrics(evidence)


def _metrics(evidence: EvalEvidence) -> dict[str, float]:
    """Only what was measured."""
    scores = {
        "eval_pass_rate": evidence.overall,
        "eval_non_choice_pass_rate": evidence.non_choice,
        **{f"eval_{name}_pass_rate": score for name, score in evidence.groups.items()},
    }
    metrics = {name: score.pass_rate for name, score in scores.items() if score.num_examples}
    if evidence.choice.num_examples:
        metrics["choice_accuracy_adjusted"] = evidence.choice_accuracy_adjusted
    return metrics
