"""Networks whose generated C is fixed text, and the digests of that text.

`python -m tests.golden_code` writes `golden_code.json` again, after the C was changed on purpose.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hydrofoil import HydrofoilError, build, read_recipe
from hydrofoil.data.source import find_source
from hydrofoil.native import make_program
from hydrofoil.train.optimizers import build_optimizer
from tests.native_cases import OPTIMIZERS, SANITIZED, classifier, share_rows

RECIPES = [
    "cifar10-lenet", "cifar10-cnn3", "mnist-mlp", "cifar10-lenet-linear", "mnist-cnn", "digits",
]  # fmt: skip
OVERRIDES = [  # the recipes' own optimizer, and every other one that has C
    [],
    ["optimizer.name=sgd", "optimizer.momentum=0"],
    ["optimizer.name=sgd", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01"],
    ["optimizer.name=adam"],
    ["train.balance=loss"],
]
DIGESTS = Path(__file__).with_suffix(".json")


def recipe_code() -> Iterator[tuple[str, str]]:
    """Yield a name and the C of every recipe with several optimizers."""
    for name in RECIPES:
        for overrides in OVERRIDES:
            try:
                recipe = read_recipe(name, overrides)
            except HydrofoilError:  # an option of another optimizer than the recipe's
                continue
            found = find_source(recipe.data.source)
            model = build(recipe, found.shape, [""] * found.classes)
            optimizer = build_optimizer(recipe.optimizer, model.network)
            weighted = recipe.train.balance == "loss"
            code = make_program(model, optimizer, recipe.train.batch_size, weighted).source
            yield " ".join([name, *overrides]), code


def random_words(chance: random.Random) -> list[str]:
    """Return a network of every kind of layer, by chance."""
    words: list[str] = []
    for _ in range(chance.randrange(4)):
        kernel, stride = chance.choice([1, 3, 31]), chance.choice([1, 2, 12])
        bias = " 1" * chance.randrange(2)
        words.append(
            f"conv {chance.randrange(1, 40)} {kernel} {stride} {chance.randrange(3)}{bias}"
        )
        words += chance.sample(
            ["relu", "tanh", "sigmoid", "norm", "norm 0", "drop 0.3", "max 2"], 2
        )
        words += chance.sample(["relu", "avg 2 1 1", "max 3 2 1", "max 1 2"], 1)
    words.append("flatten")
    for _ in range(chance.randrange(4)):
        words.append(f"linear {chance.randrange(1, 200)}{' 0' * chance.randrange(2)}")
        words += chance.sample(["relu", "tanh", "sigmoid", "norm", "norm 0", "drop 0.5"], 2)
    return words


def network_code() -> Iterator[tuple[str, str]]:
    """Yield a name and the C of the listed and of some random networks."""
    cases = [(*case[:4], rows) for case in SANITIZED for rows in (False, True)]
    for seed in range(60):
        chance = random.Random(seed)
        shape = (chance.randrange(1, 5), chance.randrange(6, 20), chance.randrange(6, 20))
        optimizer = chance.choice(sorted(OPTIMIZERS))
        cases.append((shape, random_words(chance), optimizer, chance.randrange(1, 70), seed % 2))
    for shape, words, optimizer, batch, rows in cases:
        model = classifier(shape, words)
        if model is None:
            continue
        with pytest.MonkeyPatch.context() as patch:
            share_rows(patch, bool(rows))
            code = make_program(
                model, OPTIMIZERS[optimizer](model.network.parameters()), batch
            ).source
        name = f"{shape} {', '.join(words)}; {optimizer} {batch}{' rows' * bool(rows)}"
        yield name, code


def all_code() -> dict[str, str]:
    """Return every program by its name."""
    return dict([*recipe_code(), *network_code()])


def digest(code: str) -> str:
    """Return the SHA-256 of a program's text."""
    return hashlib.sha256(code.encode()).hexdigest()


if __name__ == "__main__":
    digests = {name: digest(code) for name, code in all_code().items()}
    DIGESTS.write_text(json.dumps(digests, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{len(digests)} programs")
