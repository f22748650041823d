# SPDX-License-Identifier: Apache-2.0
"""The stack of bits: against its own inverse, whole numbers of any size, the entropy, and another coder."""

import constriction
import numpy as np
import pytest
from scipy.special import ndtr
from vdmkit_codec.distributions import ESCAPE, FINE, GaussianTable, LevelsLaw, pop, push
from vdmkit_codec.rans import PRECISION, SLOTS, Stack, first_heads, keystream, push_fused, seed_words

from vdmkit.errors import CodecError


def random_law(rng: np.random.Generator, count: int, levels: int) -> LevelsLaw:
    """So many values, each with its own distribution, some of which leave levels without weight."""
    weights = np.cumsum(rng.dirichlet(np.full(levels, 0.1), count), axis=1)
    cumulative = np.floor(weights * 2**24).astype(np.int64)
    cumulative[:, -1] = 2**24
    return LevelsLaw(np.pad(np.maximum.accumulate(cumulative, axis=1), ((0, 0), (1, 0))))


def same(a: Stack, b: Stack) -> bool:
    return np.array_equal(a.heads, b.heads) and np.array_equal(a.words, b.words)


@pytest.mark.parametrize("lanes", [1, 3, 64, 256])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_pop_undoes_push(lanes: int, count: int) -> None:
    """Pops return the symbols that were pushed and restore the stack, in whole rows or not."""
    rng = np.random.default_rng(lanes + count)
    stack = Stack(first_heads(7, lanes))
    laws = [random_law(rng, count, levels) for levels in (2, 5, 17)]
    symbols = [rng.integers(0, levels, count) for levels in (2, 5, 17)]
    states = []
    for law, values in zip(laws, symbols, strict=True):
        states.append(stack.copy())
        push(stack, law, values)
        assert (stack.heads >= 2**32).all()
    for law, values, before in reversed(list(zip(laws, symbols, states, strict=True))):
        np.testing.assert_array_equal(pop(stack, law, count), values)
        assert same(stack, before)


@pytest.mark.parametrize("lanes", [1, 64])
def test_certain_symbols(lanes: int) -> None:
    """A value with one possible symbol takes no bits."""
    rng = np.random.default_rng(lanes)
    stack, certain = Stack(first_heads(7, lanes)), LevelsLaw(np.tile([0, 2**24], (100, 1)))
    for _ in range(3):
        others = random_law(rng, 100, 5)
        push(stack, others, rng.integers(0, 5, 100))
        before = stack.copy()
        np.testing.assert_array_equal(push(stack, certain, np.zeros(100, np.int64)), 0)
        assert same(stack, before)
        np.testing.assert_array_equal(pop(stack, certain, 100), 0)
        assert same(stack, before)


def test_a_symbol_where_others_escape() -> None:
    """A level whose interval begins at the slot of the escape is not read as one."""
    weights = 2**24 - np.array([2**24, 15, 10, 5, 2, 0])
    law, stack = LevelsLaw(np.tile(weights, (5, 1))), Stack(first_heads(7, 4))
    before, symbols = stack.copy(), np.ones(5, np.int64)
    assert (law.intervals(symbols)[0] == SLOTS - ESCAPE).all()
    push(stack, law, symbols)
    np.testing.assert_array_equal(pop(stack, law, 5), symbols)
    assert same(stack, before)


@pytest.mark.parametrize("with_keys", [False, True])
def test_push_undoes_pop(with_keys: bool) -> None:
    """Pushing what was popped restores the stack bit for bit, also if it ran empty."""
    rng = np.random.default_rng(1)
    law, keys = random_law(rng, 1000, 17), keystream(5, 9, 1000) if with_keys else None
    stack = Stack(first_heads(3, 64), seed=3)
    before = stack.copy()
    symbols = law.pop_from(stack, 1000, keys)
    assert stack.seeded > 0
    starts, frequencies = law.intervals(symbols)
    push_fused(stack, starts, frequencies, keys)
    np.testing.assert_array_equal(stack.heads, before.heads)
    assert stack.length == stack.seeded
    np.testing.assert_array_equal(stack.words[::-1], seed_words(3, 0, stack.length))


@pytest.mark.parametrize("lanes", [1, 64, 5000])
@pytest.mark.parametrize("count", [0, 65, 5003])
def test_pops_against_python(lanes: int, count: int) -> None:
    """Pops agree with a reference in Python that takes one value at a time."""
    law, keys = random_law(np.random.default_rng(count), count, 5), keystream(5, 9, count)
    stack = Stack(first_heads(7, lanes), seed=3)
    heads, symbols, words = stack.heads.tolist(), [], seed_words(3, 0, 5003).tolist()[::-1]
    edges = (law.cumulative * (SLOTS - 5) // 2**24 + np.arange(6)).tolist()
    for first in range(0, count, lanes):
        low = []
        for i in range(first, min(first + lanes, count)):
            head = heads[i - first] ^ (int(keys[i]) & (SLOTS - 1))
            slot = head & (SLOTS - 1)
            symbols.append(sum(edge <= slot for edge in edges[i]) - 1)
            start, end = edges[i][symbols[-1] : symbols[-1] + 2]
            heads[i - first] = (end - start) * (head >> PRECISION) + slot - start
            low += [i - first] * (heads[i - first] < 2**32)
        for lane in reversed(low):  # pushes put the words of the first lanes first
            heads[lane] = heads[lane] << 32 | words.pop()
    assert law.pop_from(stack, count, keys).tolist() == symbols
    assert stack.heads.tolist() == heads
    assert stack.seeded == 5003 - len(words)


def test_escapes() -> None:
    """Values beyond the window come back, and leave no bits."""
    rng = np.random.default_rng(2)
    law = GaussianTable(2.0, escapes=True).at(rng.integers(-1000, 1000, 500))
    values = rng.integers(-40, 40, 500)
    values[::7] = [2**31 - 1, -(2**31), 10**6] * 24
    stack = Stack(first_heads(1, 64))
    before = stack.copy()
    bits = push(stack, law, values)
    assert (bits[::7] == 20 + 32).all()
    np.testing.assert_array_equal(pop(stack, law, 500), values)
    assert same(stack, before)


def test_an_empty_stack_without_a_seed_is_refused() -> None:
    """An empty stack without a seed raises CodecError."""
    with pytest.raises(CodecError, match="more bits than the chunk holds"):
        random_law(np.random.default_rng(0), 100, 5).pop_from(Stack(first_heads(1, 4)), 100)
    with pytest.raises(CodecError, match="more bits than the chunk holds"):
        pop(Stack(first_heads(1, 4)), GaussianTable(2.0, escapes=True).at(np.zeros(100, np.int64)), 100)


def test_push_on_no_room() -> None:
    """A stack that was read without words can grow."""
    stack = Stack(np.full(4, 2**63, np.uint64), np.zeros(0, np.uint32))
    law = random_law(np.random.default_rng(0), 100, 5)
    push(stack, law, np.zeros(100, np.int64))
    assert stack.length > 0


@pytest.mark.parametrize("lanes", [1, 5])
def test_against_python(lanes: int) -> None:
    """The order of lanes, rows and words is that of a reference in Python that takes one value at a time."""
    rng = np.random.default_rng(4)
    law, symbols = random_law(rng, 123, 9), rng.integers(0, 9, 123)
    stack = Stack(first_heads(1, lanes))
    heads, tail = stack.heads.tolist(), []
    for first in reversed(range(0, 123, lanes)):
        for i in range(first, min(first + lanes, 123)):
            start, frequency = (int(values[i]) for values in law.intervals(symbols))
            if heads[i - first] >= frequency << 38:
                tail.append(heads[i - first] & 0xFFFFFFFF)
                heads[i - first] >>= 32
            heads[i - first] = (heads[i - first] // frequency << PRECISION) + heads[i - first] % frequency + start
    push(stack, law, symbols)
    assert stack.heads.tolist() == heads
    assert stack.words.tolist() == tail


def test_against_one_large_integer() -> None:
    """Words of 32 bits cost at most 2^-6 of a slot for each value, compared with exact rANS."""
    rng = np.random.default_rng(5)
    law, symbols = random_law(rng, 2000, 9), rng.integers(0, 9, 2000)
    starts, frequencies = law.intervals(symbols)
    stack = Stack(first_heads(1, 1))
    content = int(stack.heads[0])
    for start, frequency in zip(starts[::-1].tolist(), frequencies[::-1].tolist(), strict=True):
        content = (content // frequency << PRECISION) + content % frequency + start
    push(stack, law, symbols)
    assert abs(content.bit_length() - stack.bits) < 2
    decoded = []
    for i in range(2000):
        slot = content & (SLOTS - 1)
        symbol = int((law.cumulative[i] * (SLOTS - 9) // 2**24 + np.arange(10) <= slot).sum()) - 1
        decoded.append(symbol)
        content = int(frequencies[i]) * (content >> PRECISION) + slot - int(starts[i])
    assert decoded == symbols.tolist()
    assert pop(stack, law, 2000).tolist() == decoded


def test_size_is_the_entropy_and_anothers() -> None:
    """The coder takes at most 0.1% more than the code length, and than constriction."""
    rng = np.random.default_rng(6)
    values = np.rint(rng.normal(0, 2.5, 200_000)).astype(np.int64)
    law = GaussianTable(2.5, escapes=True).at(np.zeros(len(values), np.int64))
    stack = Stack(first_heads(1, 256))
    before = stack.bits
    said = push(stack, law, values).sum()
    taken = stack.bits - before
    edges = (np.arange(-20, 22) - 0.5) / 2.5
    entropy = -np.log2(np.diff(ndtr(edges)))[values + 20].sum()
    other = constriction.stream.stack.AnsCoder()
    other.encode_reverse(values.astype(np.int32), constriction.stream.model.QuantizedGaussian(-20, 20, 0.0, 2.5))
    assert abs(said / taken - 1) < 1e-4
    for expected in (entropy, other.num_bits()):
        assert abs(taken / expected - 1) < 1e-3
    assert law.table.cells * FINE + 1 == len(law.table.cumulative)
