# SPDX-License-Identifier: Apache-2.0
"""All errors of a recipe are reported at once, each with its place and advice."""

import subprocess
import sys
from pathlib import Path

import pytest

import vdmkit
from vdmkit.errors import RecipeError
from vdmkit.recipes import load_recipe
from vdmkit.recipes.validation import RENAMED
from vdmkit.registry import register


def problems(*args) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(*args)
    return str(caught.value).split("\n")


ONE_EACH = [
    ("seed", "sed", "a.toml:1: sed: unknown key. Known: seed, data, augmentations, model, objective"),
    ("-13", "-13\ngama_max = 4", "a.toml:11: model.schedule.gama_max: unknown key. Known: gamma_min, gamma_max, ends."),
    (
        '"learned_linear"',
        '"lerned"',
        "a.toml:9: model.schedule.name: unknown schedule 'lerned'. Known: learned_linear,",
    ),
    ('"eps"', '"x"', "a.toml:13: model.prediction.name: unknown prediction 'x'. Known: eps."),
    ("1_000", '"5"', 'a.toml:23: training.steps: expected an integer, found the string "5".'),
    ("1_000", "1.5", "a.toml:23: training.steps: expected an integer, found 1.5."),
    ("1_000", "true", "a.toml:23: training.steps: expected an integer, found true."),
    ("1_000", "0", "a.toml:23: training.steps: expected greater than 0, found 0."),
    ("-13", "inf", "a.toml:10: model.schedule.gamma_min: expected a finite number, found inf."),
    ("-13", "1979-05-27", "a.toml:10: model.schedule.gamma_min: expected a number, found the string"),
    ("64", "[64]", "a.toml:17: model.network.channels: expected an integer, found the list [64]."),
    ("channels = 64", "attention = 1", "a.toml:17: model.network.attention: expected true or false, found 1."),
    ('"images"', '"i"\nsplit = "tst"', "a.toml:7: data.split: expected 'train' or 'test', found the string \"tst\"."),
    ('path = "images"\n', "", "a.toml:4: data.path: missing key (Path) in [data]."),
    ("batch_size = 8\n", "", "a.toml:22: training.batch_size: missing key (int > 0, <= 1000000) in [training]."),
    (
        '[optimizer]\nname = "adamw"\n',
        "",
        "a.toml: optimizer: missing table. Add [optimizer] with name = one of: adamw.",
    ),
    ('name = "unet"\n', "", "a.toml:15: model.network.name: missing key. Known: unet."),
    ('"unet"', "3", "a.toml:16: model.network.name: expected a string, found 3. Known: unet."),
    ('"eps"', "3", "a.toml:13: model.prediction: expected a component of kind prediction, found 3."),
    ('"flip"', '"flop"', "a.toml:2: augmentations.0.name: unknown augmentation 'flop'. Known: flip, rotate."),
    ("= [", "= 1 # [", "a.toml:2: augmentations: expected a list of components of kind augmentation, found 1."),
    ("seed = 3", "evaluation = 3", "a.toml:1: evaluation: expected a table, found 3."),
]


@pytest.mark.parametrize(("old", "new", "expected"), ONE_EACH)
def test_one_problem(write, old, new, expected):
    """An error gives the place, what was found and what was expected."""
    found = problems(write((old, new)))
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("seed", "sed", "seed"),
        ("-13", "-13\ngama_max = 4", "gamma_max"),
        ('"learned_linear"', '"lerned_linear"', "learned_linear"),
        ('"images"', '"i"\nsplit = "tst"', "test"),
        ('"flip"', '"flop"', "flip"),
    ],
)
def test_the_nearest_name_is_offered(write, old, new, hint):
    """For a misspelt name the nearest one is suggested."""
    assert problems(write((old, new)))[0].endswith(f'Did you mean "{hint}"?')


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.stps=3", "training.stps: unknown key. Known: steps,"),
        ("training.steps=many", 'training.steps: expected an integer, found the string "many".'),
        ("seed.x=3", "seed: expected an integer, found a table."),
        ("model.network=gpt", "model.network.name: unknown network 'gpt'. Known: unet."),
    ],
)
def test_problems_of_an_override_cite_it(write, override, expected):
    """An error in an override cites the `--set`, not the file."""
    found = problems(write(), [override])
    assert len(found) == 1
    assert found[0].startswith(f"--set {override}: {expected}")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_is_refused_with_its_new_name(write, old, new):
    """A renamed key is refused with its new name, in a file and in `--set`."""
    table, _, key = old.rpartition(".")
    assert problems(write(("[optimizer]", f'[{table}]\n{key} = "a"\n\n[optimizer]'))) == [
        f"a.toml:20: {old}: was renamed: {new}."
    ]
    assert problems(write(), [f"{old}.name=a"]) == [f"--set {old}.name=a: {old}: was renamed: {new}."]


def test_a_new_name_is_not_given_where_it_is_no_key(write):
    """A new name is not suggested for a component that does not have that key."""
    override = "likelihood.estimator={name='importance', steps=3}"
    assert problems(write(), [override]) == [f"--set {override}: likelihood.estimator.steps: unknown key. Known: none."]


def test_the_new_keys_are_keys(write):
    """Every new name in the table of renamed keys is a valid key."""
    found = [problems(write(), [f"{new}=a"])[0] for new in RENAMED.values()]
    assert not [text for text in found if "unknown key" in text or "was renamed" in text]


def test_three_problems_at_once_in_the_order_of_lines(write):
    """All errors of a recipe are reported at once, in the order of lines."""
    path = write(("batch_size = 8", 'batch_size = "8"'), ("gamma_min", "gama_min"), ('"unet"', '"unett"'))
    places = [line.split(": ")[:2] for line in problems(path)]
    assert places == [
        ["a.toml:8", "model.schedule.gamma_min"],
        ["a.toml:10", "model.schedule.gama_min"],
        ["a.toml:16", "model.network.name"],
        ["a.toml:24", "training.batch_size"],
    ]


def test_problems_cite_the_extended_file(write):
    """An error in an extended recipe cites the file that contains it."""
    write(("gamma_min", "gama_min"), ("channels = 64", "channels = 0"), name="parent.toml")
    path = write(text='extends = "parent.toml"\n[model.network]\nchannels = -1\n')
    assert [line.split(": ")[0] for line in problems(path)] == ["a.toml:3", "parent.toml:8", "parent.toml:10"]


def test_an_empty_recipe_asks_for_everything(write):
    """For an empty recipe every required key is reported as missing."""
    found = problems(write(text=""))
    keys = [line.split(": ")[1] for line in found]
    wanted = ["data", "model.network", "model.prediction", "model.schedule", "optimizer"]
    assert keys == sorted([*wanted, "training.batch_size", "training.steps"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nb = = 2\n", "a.toml:2:5: not valid TOML"),
        ("a = 1\na = 2\n", "a.toml:2:6: not valid TOML"),
        ('a = "x', "a.toml:1:"),
        ('a = """x\n\n', "a.toml:"),
        ("a = [1,", "a.toml:1:8: not valid TOML"),
        ("extends = 3", "a.toml:1: extends: expected the path of a recipe, found 3."),
        ('extends = "no.toml"', "a.toml:1: extends: no.toml: no such file. The path is relative to a.toml."),
        ('extends = "a.toml"', "a.toml: extends is circular"),
    ],
)
def test_files_that_cannot_be_read(write, text, expected):
    """A file with a syntax error is reported with its line."""
    found = problems(write(text=text))
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize("override", ["steps", "=3", "a b=3", "", "[x]=1"])
def test_overrides_that_are_none(write, override):
    """A malformed `--set` is refused."""
    assert problems(write(), [override])[0].startswith(f"--set {override}: ")


def test_missing_file_and_binary_file(write):
    """A missing file and a binary file are reported in one line each."""
    assert problems("none.toml") == ["none.toml: cannot read the recipe: no such file."]
    Path("b.toml").write_bytes(b"\xff\xfe\x00")
    assert problems("b.toml") == ["b.toml: not UTF-8 text (byte 0). A recipe is a TOML file."]


def test_a_type_that_no_recipe_can_give(write):
    """A plugin parameter of a type that TOML cannot express is reported as such."""

    class Odd:
        """Not a TOML value."""

    @register("prediction", "odd")
    class Prediction:
        """Has a parameter that TOML cannot express."""

        def __init__(self, *, odd: Odd): ...

    assert problems(write(('prediction = "eps"', 'prediction = {name = "odd", odd = 1}')))[0].endswith(
        "a recipe cannot give a value of type Odd."
    )


@pytest.mark.parametrize("text", ["a = = 1\n", 'extends = "none.toml"\n'])
def test_syntax_errors_come_before_jax(write, text):
    """A syntax error is reported before JAX is imported."""
    code = (
        "import sys\nfrom vdmkit.errors import RecipeError\nfrom vdmkit.recipes import load_recipe\n"
        f"try: load_recipe({str(write(text=text).resolve())!r})\n"
        "except RecipeError as error: print(error)\n"
        "print('jax' in sys.modules)"
    )
    root = Path(vdmkit.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "a.toml:1" in result.stdout
    assert result.stdout.endswith("False\n")
