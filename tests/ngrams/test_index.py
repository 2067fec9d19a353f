from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.errors import CheckpointError, OptionError, TextError
from charlm.ngrams.index import DEPTH, SuffixIndex
from charlm.ngrams.levels import UNSEEN
from charlm.ngrams.suffixes import fast_available

METHODS = [
    "numpy",
    pytest.param("fast", marks=pytest.mark.skipif(not fast_available(), reason="no pydivsufsort")),
]
TEXTS = st.lists(st.lists(st.integers(0, 2), max_size=45), min_size=1, max_size=4).filter(any)


def joined(spans):
    edges = np.cumsum([0, *map(len, spans)])
    return np.array([c for span in spans for c in span], dtype=np.uint8), np.stack([edges[:-1], edges[1:]], axis=1)


def built(spans, symbols, method="numpy"):
    return SuffixIndex.build(*joined(spans), symbols=symbols, method=method)


def strings(spans, length):
    """Counts of all strings of a length, by slicing."""
    return Counter(tuple(s[i : i + length]) for s in spans for i in range(len(s) - length + 1))


def suffix(index, place):
    """The ids of a sorted suffix to the end of its span, at most DEPTH of them."""
    start = int(index.suffixes[place])
    codes = index.codes[start : start + DEPTH].tolist()
    codes = codes[: codes.index(0)] if 0 in codes else codes
    return index.ids_of(np.array(codes, dtype=np.int64)).tolist()


@pytest.mark.parametrize("method", METHODS)
@given(spans=TEXTS)
@settings(max_examples=60, deadline=None)
def test_suffixes_are_sorted_and_their_common_prefixes_counted(method, spans):
    index = built(spans, 3, method)
    found = [suffix(index, place) for place in range(len(index))]
    assert found == sorted(s[i:][:DEPTH] for s in spans for i in range(len(s)))
    assert sorted(index.suffixes.tolist()) == np.flatnonzero(index.codes).tolist()
    for place in range(1, len(found)):
        a, b = found[place - 1], found[place]
        common = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        assert index.lcp[place] == common


@pytest.mark.skipif(not fast_available(), reason="no pydivsufsort")
def test_both_methods_count_the_same_to_order_32():
    rng = np.random.default_rng(5)
    phrase = rng.integers(0, 4, 300)
    ids = np.concatenate([phrase, rng.integers(0, 4, 500), phrase, phrase[20:]])
    spans = np.array([[0, 900], [900, len(ids)]])
    one, two = (SuffixIndex.build(ids, spans, symbols=4, method=method) for method in ("numpy", "fast"))
    assert np.array_equal(one.lcp, two.lcp)
    for order in range(DEPTH):
        for name in ("first_H", "id_E", "count_E", "place_E"):
            assert np.array_equal(getattr(one.levels[order], name), getattr(two.levels[order], name))


@given(spans=TEXTS)
@settings(max_examples=40, deadline=None)
def test_levels_hold_every_string_once_with_its_count(spans):
    index = built(spans, 3)
    nodes = {(): 0}
    for order in range(DEPTH):
        level, counts = index.levels[order], strings(spans, order + 1)
        assert level.events == len(counts)
        children = {}
        for string, node in nodes.items():
            for event in range(level.first_H[node], level.first_H[node + 1]):
                children[*string, int(level.id_E[event])] = event
        assert {string: int(level.count_E[event]) for string, event in children.items()} == counts
        if order:
            shorter = index.levels.suffix(order)
            assert all(nodes[string[1:]] == shorter[event] for string, event in children.items())
        nodes = children


@given(spans=TEXTS, query=st.lists(st.integers(-1, 3), max_size=12))
@settings(max_examples=60, deadline=None)
def test_find_followers_match_and_nodes_agree_with_slicing(spans, query):
    index = built(spans, 4)
    low, high = index.find(query)
    occurs = strings(spans, len(query))[tuple(query)]
    assert high - low == (occurs if query else len(index))
    after = {s[-1]: n for s, n in strings(spans, len(query) + 1).items() if list(s[:-1]) == query}
    assert index.followers(query) == sorted(after.items())
    lengths, places = index.match(np.array(query, dtype=np.int64))
    for at, (length, place) in enumerate(zip(lengths.tolist(), places.tolist(), strict=True)):
        longest = max(n for n in range(len(query) - at + 1) if n == 0 or strings(spans, n)[tuple(query[at : at + n])])
        assert length == longest
        assert suffix(index, place)[:length] == query[at : at + length]
    nodes = index.levels.nodes(np.array(query, dtype=np.int64), np.arange(1, len(query) + 1), 5)
    for n in range(6):
        for at, node in enumerate(nodes[n].tolist()):
            string = tuple(query[at + 1 - n : at + 1])
            assert (node != UNSEEN) == (at + 1 >= n and (n == 0 or strings(spans, n)[string] > 0))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symbols", [256, 70_000])
def test_wide_vocabularies_and_every_byte(method, symbols):
    rng = np.random.default_rng(1)
    ids = np.concatenate([np.arange(256), rng.integers(0, symbols, 2000), [0, 0, symbols - 1, 0, 0]])
    spans = np.array([[0, 700], [700, 701], [701, len(ids)]])
    index = SuffixIndex.build(ids, spans, symbols=symbols, method=method)
    pieces = [ids[a:b].tolist() for a, b in spans]
    for order in (0, 1, 2):
        counts = strings(pieces, order + 1)
        level = index.levels[order]
        assert level.events == len(counts)
        assert sorted(level.count_E.tolist()) == sorted(counts.values())
    assert index.find([0, 0])[1] - index.find([0, 0])[0] == strings(pieces, 2)[0, 0]


def test_a_character_costs_six_bytes():
    ids = np.random.default_rng(0).integers(0, 255, 10_000)
    index = SuffixIndex.build(ids, np.array([[0, 10_000]]), symbols=255)
    assert index.nbytes <= 6 * 10_000 + 4 * 255 + 1


@pytest.mark.parametrize("text", [[0] * 2000, [0, 1] * 1000, [2] * 40 + [1] * 40])
def test_monotonous_texts(text):
    index = built([text], 3)
    for order in (0, 1, 31, 32):
        level = index.levels[order]
        counts = strings([text], order + 1)
        assert sorted(level.count_E.tolist()) == sorted(counts.values())


def test_saved_and_opened_as_memory_maps(tmp_path):
    index = built([[0, 1, 2, 0, 1], [2, 2]], 3)
    index.save(tmp_path)
    again = SuffixIndex.load(tmp_path, symbols=3)
    for name in ("codes", "suffixes", "lcp", "alphabet"):
        assert np.array_equal(getattr(again, name), getattr(index, name))
        assert not getattr(again, name).flags.writeable
    assert again.followers([0, 1]) == [(2, 1)]


def spoil(name, change):
    def do(directory: Path):
        path = directory / f"index-{name}.npy"
        array = np.load(path)
        np.save(path, change(array))

    return do


HARM = {
    "missing": lambda d: (d / "index-lcp.npy").unlink(),
    "empty": lambda d: (d / "index-lcp.npy").write_bytes(b""),
    "cut": lambda d: (d / "index-suffixes.npy").write_bytes((d / "index-suffixes.npy").read_bytes()[:-4]),
    "noise": lambda d: (d / "index-codes.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xff{'descr': ("),
    "pickle": lambda d: np.save(d / "index-codes.npy", np.array([{}], dtype=object), allow_pickle=True),
    "dtype": spoil("suffixes", lambda a: a.astype(np.int64)),
    "float": spoil("codes", lambda a: a.astype(np.float64)),
    "shape": spoil("codes", lambda a: a[None]),
    "scalar": spoil("codes", lambda a: a[0]),
    "length": spoil("lcp", lambda a: a[:-1]),
    "outside": spoil("suffixes", lambda a: a + 100),
    "negative": spoil("suffixes", lambda a: a - 1),
    "unsorted": spoil("suffixes", lambda a: a[::-1].copy()),
    "code": spoil("codes", lambda a: np.where(a == 3, 9, a).astype(np.uint8)),
    "depth": spoil("lcp", lambda a: np.where(a > 0, 200, a).astype(np.uint8)),
    "agreement": spoil("lcp", np.zeros_like),
    "alphabet": spoil("alphabet", lambda a: a + 1),
    "alphabet order": spoil("alphabet", lambda a: a[::-1].copy()),
    "no end": spoil("codes", lambda a: np.where(a == 0, 1, a).astype(np.uint8)),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_broken_index_is_refused_in_one_sentence(tmp_path, harm):
    built([[0, 1, 2, 0, 1], [2, 2]], 3).save(tmp_path)
    HARM[harm](tmp_path)
    with pytest.raises(CheckpointError) as caught:
        SuffixIndex.load(tmp_path, symbols=3)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_indexed_is_said():
    with pytest.raises(TextError, match="no character"):
        SuffixIndex.build(np.zeros(0, np.uint8), np.zeros((0, 2), np.int64), symbols=2)
    with pytest.raises(TextError, match="from 0 to 1"):
        SuffixIndex.build(np.array([0, 2]), np.array([[0, 2]]), symbols=2)
    with pytest.raises(TextError, match="-1"):
        SuffixIndex.build(np.array([0, -1]), np.array([[0, 2]]), symbols=2)
    with pytest.raises(OptionError, match="choose one of"):
        SuffixIndex.build(np.array([0]), np.array([[0, 1]]), symbols=2, method="slow")


def test_the_counts_published_for_tiny_shakespeare():
    path = Path(__file__).parents[3] / "shared" / "data" / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("the corpus tinyshakespeare.txt is not on this machine")
    text = path.read_text()
    letters = sorted(set(text))
    ids = np.frombuffer(text.encode(), dtype=np.uint8)
    index = SuffixIndex.build(ids, np.array([[0, len(ids)]]), symbols=128)
    counts = {chr(id): count for id, count in index.followers([ord(c) for c in "ello"])}
    assert counts == {"w": 112, ",": 7, "r": 7, "u": 5, "?": 3, " ": 1, ".": 1, ":": 1}
    assert len(letters) == len(index.alphabet) == 65
