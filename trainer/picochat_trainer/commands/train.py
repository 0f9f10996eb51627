"""`picochat train base` and `picochat train sft`: one stage on files of one's own. No torch at import."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from picochat_contract import layout
from picochat_contract.batch_size import stage_config
from picochat_contract.config_base import Config
from picochat_contract.configs import BaseSection, ModelConfig, Resources, SftConfig
from picochat_contract.exit_codes import ClientExit
from picochat_contract.spec import validated
from picochat_contract.stages import StageName

from picochat_trainer.commands import train_options as o
from picochat_trainer.commands.display import exit_code, explain_failure, live_display, print_stages
from picochat_trainer.commands.dry_run import say
from picochat_trainer.commands.lr_range import lr_range
from picochat_trainer.commands.token_folder import manifest_of, tokens_for
from picochat_trainer.commands.train_options import board_folder, settings_of, take_up
from picochat_trainer.local_run import LocalRun
from picochat_trainer.machines import together
from picochat_trainer.paid_launch import confirm_training, model_of

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.command("lr-range")(lr_range)


@app.callback()
def train() -> None:
    """Train one stage: base or sft; or find a learning rate."""


@app.command()
@o.with_loop_options
def base(
    tokenizer: o.Tokenizer,
    out_dir: Annotated[Path, typer.Option(help="Where checkpoints and reports go.")],
    corpus: o.Corpus = None,
    tokens: o.Tokens = None,
    corpus_manifest: o.CorpusManifest = None,
    dataset_mode: Annotated[
        Literal["memory", "sharded", "packed"] | None, typer.Option(help="How the tokens are read.")
    ] = None,
    split_mode: Annotated[
        Literal["document", "window"] | None, typer.Option(help="How text is held out.")
    ] = None,
    context_size: o.ContextSize = None,
    n_layer: Annotated[int | None, typer.Option()] = None,
    n_head: Annotated[int | None, typer.Option()] = None,
    n_kv_head: Annotated[int | None, typer.Option()] = None,
    n_embd: Annotated[int | None, typer.Option()] = None,
    mlp_hidden: Annotated[int | None, typer.Option(help="Hidden width of the MLP.")] = None,
    norm_type: Annotated[
        Literal["rmsnorm", "layernorm"] | None, typer.Option(help="rmsnorm or layernorm.")
    ] = None,
    position_encoding: Annotated[
        Literal["rope", "learned"] | None, typer.Option(help="rope, or a learned table as in GPT-2.")
    ] = None,
    activation: Annotated[
        Literal["swiglu", "gelu", "relu2"] | None, typer.Option(help="Of the MLP: swiglu, gelu or relu2.")
    ] = None,
    logit_softcap: Annotated[
        float | None, typer.Option(help="Logits become cap x tanh(logits / cap); 0 is off.")
    ] = None,
    dropout: Annotated[float | None, typer.Option()] = None,
    tie_embeddings: Annotated[bool | None, typer.Option()] = None,
    qk_norm: Annotated[bool | None, typer.Option()] = None,
    parallel_residual: Annotated[bool | None, typer.Option()] = None,
    scaled_residual_init: Annotated[bool | None, typer.Option()] = None,
    canary_count: Annotated[int | None, typer.Option(help="Secrets planted to measure memorization.")] = None,
    optimizer: Annotated[
        Literal["adamw", "muon"] | None,
        typer.Option(help="muon takes the matrices of the blocks, AdamW the rest."),
    ] = None,
    loss_spike_rollback: Annotated[
        bool | None, typer.Option(help="Go back to the last good weights where the loss jumps.")
    ] = None,
    document_mask: Annotated[
        bool | None, typer.Option(help="Attention does not look over the beginning of a document.")
    ] = None,
    global_batch_tokens: o.GlobalBatchTokens = None,
    **loop: Any,
) -> int:
    """Pretrain a GPT from nothing on a text."""
    options = {**locals(), **loop}
    resources = validated(Resources, settings_of(Resources, options))
    model = settings_of(ModelConfig, options)
    section = validated(BaseSection, {"model": model, **settings_of(BaseSection, options)})
    config = stage_config(section, resources.num_ranks)

    def lead() -> int:
        confirmed = loop["confirm_paid_launch"]
        confirm_training(config, config.model, tokenizer, resources, out_dir, confirmed=confirmed, say=say)
        folder = tokens_for(
            tokens=tokens,
            corpus=corpus,
            corpus_manifest=corpus_manifest,
            tokenizer=tokenizer,
            out_dir=out_dir,
        )
        paths = {
            layout.TOKENS_DIR: folder,
            layout.BASE_DIR: out_dir,
            # That of the output folder, if it has one, may be of another corpus; a store holds none.
            layout.CORPUS_MANIFEST: corpus_manifest or manifest_of(corpus) or folder / layout.CORPUS_MANIFEST,
            **_tokenizer_paths(tokenizer),
            **_board_paths(layout.BASE_DIR, out_dir, loop["tensorboard_log_dir"]),
        }
        take_up(loop["resume_from"], out_dir)
        return _train(StageName.BASE, config, out_dir, paths, resources)

    return together(out_dir, resources, lead, say)


@app.command()
@o.with_loop_options
def sft(
    input: Annotated[Path, typer.Option(help="Chat JSONL.")],
    tokenizer: o.Tokenizer,
    checkpoint: Annotated[Path, typer.Option(help="Base checkpoint folder, such as base/best_checkpoint.")],
    out_dir: Annotated[Path, typer.Option(help="Where the checkpoint and reports go.")],
    sampling: Annotated[
        Literal["uniform", "category_sqrt", "category_balanced"] | None,
        typer.Option(help="How often each category is drawn."),
    ] = None,
    train_on: Annotated[
        Literal["last", "all"] | None,
        typer.Option(help="Which assistant turns of a conversation are learned; the rest is context. [last]"),
    ] = None,
    **loop: Any,
) -> int:
    """Fine-tune a base checkpoint on chat rows."""
    options = {**locals(), **loop}
    config = validated(SftConfig, settings_of(SftConfig, options))
    resources = validated(Resources, settings_of(Resources, options))
    paths = {
        layout.CHAT: input,
        layout.BASE_BEST: checkpoint,
        layout.SFT_DIR: out_dir,
        **_tokenizer_paths(tokenizer),
        **_board_paths(layout.SFT_DIR, out_dir, loop["tensorboard_log_dir"]),
    }

    def lead() -> int:
        model, confirmed = model_of(checkpoint), loop["confirm_paid_launch"]
        confirm_training(config, model, tokenizer, resources, out_dir, confirmed=confirmed, say=say)
        take_up(loop["resume_from"], out_dir)
        return _train(StageName.SFT, config, out_dir, paths, resources)

    return together(out_dir, resources, lead, say)


def _tokenizer_paths(tokenizer: Path) -> dict[str, Path]:
    file = tokenizer / layout.TOKENIZER if tokenizer.is_dir() else tokenizer
    return {layout.TOKENIZER: file, layout.TOKENIZER_CONFIG: file.with_name(layout.TOKENIZER_CONFIG)}


def _board_paths(stage: str, out_dir: Path, folder: Path | None) -> dict[str, Path]:
    return {f"{stage}/{layout.TENSORBOARD}": board_folder(out_dir, folder)} if folder else {}


def _train(
    stage: StageName, config: Config, out_dir: Path, paths: Mapping[str, Path], resources: Resources
) -> int:
    with live_display(out_dir.name, [stage]) as on_event:
        rows = LocalRun(
            run_dir=out_dir,
            stages={stage: config},
            resources=resources,
            on_event=on_event,
            paths={name: str(path.absolute()) for name, path in paths.items()},
            reuse=False,
        ).run()
    print_stages(rows)
    code = exit_code(rows)
    if code != ClientExit.OK:
        explain_failure(rows)
        return code
    print(out_dir / "report.md")
    return code
