"""Print docs/preflight.md from the rules themselves: `python tools/preflight_page.py > docs/preflight.md`.

A test compares the two.
"""

import sys

from picochat_contract.device_classes import CPU_BF16, CPU_FLOAT32, GPU_CLASSES
from picochat_contract.preflight_budget import LONG_FLOPS, LONG_PARAMETERS, LONG_STEPS, TOKENS_PER_BYTE
from picochat_contract.preflight_judge import RULES, table

TEXT = """\
# Preflight

The preflight stage measures the data, the rows and the machine after the dataset and honesty stages and before anything
is trained. It writes `preflight.json` (report and facts) and `preflight.md`. Locally `picochat run tiny` stops where it
blocks and exits 2, with or without `--strict`; `--preflight-only` ends there in any case. On the server the stored facts
are judged again, and a blocked run is never given to a worker that would train.

There are {num_rules} checks. The status is `blocked` where one blocks that nobody waived, `warn` where one warns or is
waived, else `ready`. A waiver is a setting of the spec (`preflight.allow_leaky_eval` and so on) or an option of
`run tiny`; the report names it, and a release gate does not accept it.

A limit marked `(long)` holds for long runs: {steps:,} base steps or more, or {parameters:,} parameters or more where
base training also takes {flops:.0e} operations. The CPU demo is not one: it has 1.05 million parameters, but takes half a
minute, and these limits guard money and days. `(release)` is gate profile first_release or skill_release. Checks about
stages that a run does not have are left out, and the report says how many.

{rules}

## How the figures are estimated

- Parameters are those of the model, exactly; a test compares them with the built one. A char tokenizer's vocabulary is
  taken to have 96 characters, and bpe to reach the size that was asked for.
- Tokens of the corpus, before a tokenizer exists, per UTF-8 byte: {tokens}; char and byte 1.
- Memory: float32 weights, gradients and optimizer states, autocast's copy of the weights, the running mean and rollback's
  snapshot where they are on, what the eager layers keep for the backward pass (a test measures it), and the logits of one
  chunk at 12 bytes each. With fsdp a rank has its share of the states, and whole the embedding and two blocks, with
  accumulation also all gradients. With gradient checkpointing the activations are each block's input and one block
  whole. `torch.compile` needs less.
- Disk: the token store, four resume checkpoints (a stage has three at most: the newest, the one before it, the one being
  written), two snapshots of rollback, best and last weights of base and SFT, and the kept ones of base.
- Time: PaLM's operations per token over {share:.0%} of the device's bf16 peak by its data sheet ({gpus}), or over
  {cpu:.0f} GFLOP/s per CPU core with bf16 instructions and {slow:.0f} without, a little under what was measured (docs/log.md).
  With gradient checkpointing there are a third more operations, with Muon those of the orthogonalisation on the busiest rank.
  Generation for fit and eval is not counted.
- The learning rate is compared with Step Law (arXiv 2503.04715) for the model's body, the planned tokens and the batch.
- The cost in money is not estimated: no price is configured.
"""


def page() -> str:
    tokens = ", ".join(f"{rate:g} from a vocabulary of {size:,}" for size, rate in TOKENS_PER_BYTE if size)
    return TEXT.format(
        num_rules=len(RULES),
        steps=LONG_STEPS,
        parameters=LONG_PARAMETERS,
        flops=LONG_FLOPS,
        rules="\n".join(table()),
        tokens=f"{tokens}, else {TOKENS_PER_BYTE[-1][1]:g}",
        share=GPU_CLASSES[0].utilisation,
        gpus=", ".join(f"{kind.pattern} {kind.peak_flops / 1e12:.0f} TFLOP/s" for kind in GPU_CLASSES),
        cpu=CPU_BF16.peak_flops / 1e9,
        slow=CPU_FLOAT32.peak_flops / 1e9,
    )


if __name__ == "__main__":
    sys.stdout.write(page())
