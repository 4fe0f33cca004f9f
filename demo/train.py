"""Trains the demo model on synthetic Hermes dialogues and writes it as GGUF.

    python train.py --out demo.gguf

Seven stages: short dialogues full of words that are hard to copy, then nearly all dialogues with such words, then with
plainer words, then with more requests in each, then twice with more JSON, at last with
unusual names for tools and parameters. From the fourth on, windows are as long as the
context length, so that every position of it is learned. Matrices inside the layers are trained with Muon, everything else with AdamW.
Data is a function of the seed alone; floating-point sums are not the same on every machine.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dialogues import dialogue
from export import read_weights, write_gguf
from model import Llama, Shape
from packing import encode, windows
from tokenizer import train_tokenizer
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from words import PLAIN, Style


@dataclass(frozen=True)
class Stage:
    """A stretch of training on windows of one length."""

    steps: int
    length: int
    batch: int
    style: Style = PLAIN


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result."""

    stages: tuple[Stage, ...] = (
        Stage(600, 256, 24, Style(long_words=True)),
        Stage(1000, 768, 11, Style(long_words=True)),
        Stage(1200, 768, 11),
        Stage(400, 1024, 8, Style(dense=True, json_share=2.5)),
        Stage(400, 1024, 8, Style(dense=True, json_share=8, repeat_schema=True)),
        Stage(190, 1024, 8, Style(dense=True, json_share=4, repeat_schema=True)),
        Stage(310, 1024, 8, Style(dense=True, json_share=6, repeat_schema=True, odd_names=0.4)),
    )
    # Step and share of the peak learning rate, with straight lines between.
    schedule: tuple[tuple[int, float], ...] = (
        (0, 0.0),
        (100, 1.0),
        (2080, 1.0),
        (2800, 0.357),
        (3200, 0.203),
        (3240, 0.3),
        (3600, 0.049),
        (3630, 0.25),
        (3790, 0.001),
        (3820, 0.25),
        (4100, 0.0),
    )
    muon_rate: float = 4e-3
    adam_rate: float = 2e-3
    seed: int = 1

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def rate(self, step: int, first_step: int) -> float:
        """Share of the peak learning rate; after a resume it takes 50 steps to get there."""
        scheduled = float(np.interp(step + 1, *zip(*self.schedule, strict=True)))
        return scheduled * (min(1.0, (step - first_step + 1) / 50) if first_step else 1.0)


def batches(recipe: Recipe, tokenizer: Tokenizer, first_stage: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of all stages from `first_stage` on, in order."""
    for number, stage in enumerate(recipe.stages):
        if number < first_stage:
            continue
        stream = windows(
            tokenizer,
            seed=f"train {recipe.seed} {number}",
            length=stage.length,
            batch=stage.batch,
            style=stage.style,
        )
        for _ in range(stage.steps):
            yield next(stream)


def optimizers(model: Llama, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [p for p in model.layers.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2] + [model.token_embd.weight]
    return [
        torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=recipe.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


@torch.no_grad()
def exact_turns(model: Llama, tokenizer: Tokenizer, count: int) -> dict[str, tuple[int, int]]:
    """Share of held-out assistant turns that greedy decoding would get exactly right: kind -> (right, all).

    A turn is exact if and only if each of its tokens is the most likely one after the true text before it, so one
    forward pass over the dialogue tells.
    """
    result: dict[str, tuple[int, int]] = {}
    for number in range(count):
        conversation = dialogue(random.Random(f"progress {number}"), Style(held_out=True))
        ids, wanted = encode(tokenizer, conversation)
        tokens = torch.tensor(ids[: model.shape.context_length])
        best = functional.linear(model(tokens[None])[0], model.token_embd.weight).argmax(-1)
        right = [True, *(best[:-1] == tokens[1:]).tolist()]
        turn: list[bool] = []
        for good, learn in zip([*right, True], [*wanted[: len(tokens)], False], strict=True):
            if learn:
                turn.append(good)
            elif turn:
                hits, total = result.get(conversation.kind, (0, 0))
                result[conversation.kind] = (hits + all(turn), total + 1)
                turn = []
    return result


def train(recipe: Recipe, shape: Shape, out: Path, first_stage: int = 0) -> None:
    """Train from nothing and write the GGUF; progress goes to standard output.

    With `first_stage`, go on from `out` or the checkpoint beside it, which has the stages before that one done.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(seed=recipe.seed)
    tokenizer.save(str(out.with_suffix(".tokenizer.json")))
    model = Llama(shape)
    if first_stage:
        checkpoint = out.with_suffix(".pt")
        model.load_state_dict(torch.load(checkpoint) if checkpoint.exists() else read_weights(out))
    first_step = sum(stage.steps for stage in recipe.stages[:first_stage])
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {recipe.steps} steps", flush=True)
    forward = torch.compile(model)
    steppers = optimizers(model, recipe)
    peaks = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    started, smooth = time.monotonic(), 7.0
    for step, (tokens, wanted) in enumerate(batches(recipe, tokenizer, first_stage), first_step):
        for stepper, peak in zip(steppers, peaks, strict=True):
            stepper.param_groups[0]["lr"] = peak * recipe.rate(step, first_step)
        loss = model.loss(forward(tokens), tokens, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        smooth += 0.03 * (loss.item() - smooth)
        if step % 25 == 0:
            print(f"step {step} loss {smooth:.4f} nats after {time.monotonic() - started:.0f} s", flush=True)
        if step % 400 == 399 or step == recipe.steps - 1:
            print(f"step {step} exact turns {exact_turns(model, tokenizer, 150)}", flush=True)
            torch.save(model.state_dict(), out.with_suffix(".pt"))
    write_gguf(model, tokenizer, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo.gguf"))
    parser.add_argument("--first-stage", type=int, default=0, help="resume after the stages before this one")
    options = parser.parse_args()
    train(Recipe(), Shape(), options.out, options.first_stage)
