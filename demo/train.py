"""Trains the demo model on synthetic Hermes dialogues and writes it as GGUF.

    python train.py --out demo.gguf

Nine stages: short dialogues full of words that are hard to copy, then nearly all dialogues with such words, then with
plainer words, then with more requests in each, then twice with more JSON, then with unusual names for tools and
parameters, then with two more layers, more tools to choose from, and most weight on what is not yet sure, and at last
with two things asked at once more often, of tools with English names. The model is the average of what the last two
stages end with. From the fourth on, windows are as long as the context length, so that every position of it is learned.

Matrices inside the layers are trained with Muon, everything else with AdamW. Data is a function of the seed alone;
floating-point sums are not the same on every machine.
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
from model import Llama, Shape, grown
from packing import encode, windows
from tokenizer import train_tokenizer
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from words import PLAIN, Style


@dataclass(frozen=True)
class Stage:
    """A stretch of training on windows of one length; `focus` weights tokens by how unsure they are."""

    steps: int
    length: int
    batch: int
    style: Style = PLAIN
    focus: bool = False
    layers: int = 4


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
        Stage(1300, 1024, 8, Style(dense=True, json_share=4, repeat_schema=True, odd_names=0.4)),
        Stage(
            1100,
            1024,
            8,
            Style(dense=True, json_share=3, repeat_schema=True, odd_names=0.15, many_tools=True),
            focus=True,
            layers=6,
        ),
        Stage(
            380,
            1024,
            8,
            Style(dense=True, json_share=1.5, pairs=2.5, odd_names=0.1, many_tools=True, ordinary_tools=True),
            focus=True,
            layers=6,
        ),
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
        (3840, 0.5),
        (4390, 0.4),
        (5090, 0.01),
        (5140, 0.4),
        (5600, 0.35),
        (6190, 0.01),
        (6240, 0.3),
        (6570, 0.0),
    )
    # Share of the last stage in the average of what the last two stages end with; the average beats both.
    last_stage: float = 0.6
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


def batches(recipe: Recipe, tokenizer: Tokenizer, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one stage, in order."""
    stage = recipe.stages[number]
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


class Trainer:
    """A model in training, with the step it has reached; it grows where a stage has more layers than the one before."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe = recipe
        self.out = out
        self.tokenizer = train_tokenizer(seed=recipe.seed)
        self.tokenizer.save(str(out.with_suffix(".tokenizer.json")))
        self.started = time.monotonic()

    def run(self, first_stage: int) -> Llama:
        """All stages from `first_stage` on; the ones before are in `out` or the checkpoint beside it."""
        checkpoint = self.out.with_suffix(".pt")
        model = Llama(Shape(layers=self.recipe.stages[0].layers))
        state = model.state_dict()
        if first_stage:
            state = torch.load(checkpoint) if checkpoint.exists() else read_weights(self.out)
        step = sum(stage.steps for stage in self.recipe.stages[:first_stage])
        before = state
        for number in range(first_stage, len(self.recipe.stages)):
            layers = self.recipe.stages[number].layers
            model = Llama(Shape(layers=layers))
            before = grown(state, layers)
            model.load_state_dict(before)
            step = self._stage(model, number, step)
            state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            torch.save(state, checkpoint)
        share = self.recipe.last_stage
        model.load_state_dict({name: (1 - share) * before[name] + share * state[name] for name in state})
        return model

    def _stage(self, model: Llama, number: int, first_step: int) -> int:
        """One stage; the optimizers start anew, and the learning rate takes 50 steps to rise."""
        stage, smooth = self.recipe.stages[number], 0.0
        print(
            f"stage {number}: {sum(p.numel() for p in model.parameters()):,} parameters, {stage.steps} steps",
            flush=True,
        )
        forward, steppers = torch.compile(model), optimizers(model, self.recipe)
        peaks = [stepper.param_groups[0]["lr"] for stepper in steppers]
        step = first_step
        for step, (tokens, wanted) in enumerate(batches(self.recipe, self.tokenizer, number), first_step):
            for stepper, peak in zip(steppers, peaks, strict=True):
                stepper.param_groups[0]["lr"] = peak * self.recipe.rate(step, first_step)
            loss = model.loss(forward(tokens), tokens, wanted, focus=stage.focus)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for stepper in steppers:
                stepper.step()
                stepper.zero_grad(set_to_none=True)
            smooth = loss.item() if step == first_step else smooth + 0.03 * (loss.item() - smooth)
            if step % 25 == 0:
                passed = time.monotonic() - self.started
                print(f"step {step} loss {smooth:.4f} nats after {passed:.0f} s", flush=True)
        print(f"step {step} exact turns {exact_turns(model, self.tokenizer, 150)}", flush=True)
        return step + 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo.gguf"))
    parser.add_argument("--first-stage", type=int, default=0, help="resume after the stages before this one")
    options = parser.parse_args()
    torch.manual_seed(Recipe.seed)
    trainer = Trainer(Recipe(), options.out)
    write_gguf(trainer.run(options.first_stage), trainer.tokenizer, options.out)
