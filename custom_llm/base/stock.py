"""Whether a model that was read from a Hugging Face folder computes what the stock class of transformers computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from custom_llm.model import GPTLanguageModel

BOUND = 1e-4  # of logits, as a share of the largest where that is more than 1


@torch.no_grad()
def compare_with_stock(folder: Path, model: GPTLanguageModel, windows: Sequence[Sequence[int]]) -> float:
    """The largest difference between a model's logits and those of the stock class, on windows of token ids.

    Raises ValueError where rounding does not explain it, or transformers does not load the folder.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        stock = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False, local_files_only=True,
            use_safetensors=True,
        ).eval()  # fmt: skip
    except Exception as error:  # transformers raises nothing narrower
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"transformers does not load it ({reason}); --no_verify converts it without") from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    worst = 0.0
    for window in windows:
        ids = torch.tensor([window])  # (1, T)
        expected, actual = stock(ids).logits.float(), model(ids)[0].float()  # (1, T, vocab_size)
        difference = float((expected - actual).abs().max())
        bound = BOUND * max(1.0, float(expected.abs().max()))
        if not difference <= bound:  # the negation also catches NaN
            raise ValueError(
                f"read here it would not compute what transformers computes (logits differ by {difference:.1e} where "
                f"rounding explains {bound:.0e}), so nothing is written; --no_verify converts it anyway"
            )
        worst = max(worst, difference)
    return worst
