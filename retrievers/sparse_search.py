"""The loops of sparse search, compiled: best passages with pruning, the same without, and lookups of given passages.

Numba's cache notices changes of this file alone: a function here must not use a compiled function of another file.
Scores are whole numbers, so that no order of adding changes them; a result is one number that holds score and position,
larger for a larger score and, among equal scores, for a smaller position. All reads stay within the file and the work arrays,
whatever the file holds: a position is taken modulo the range, and list bounds and candidates are checked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexers.sparse_file import FIRST, GROUP, IMPACTS, LISTS, PEAKS, POSITIONS, POSTINGS, RANGE, STARTS, TOKENS
from rag.compiled import compiled

_Bytes = NDArray[np.uint8]
_Shorts = NDArray[np.int16]
_Words = NDArray[np.int32]
_Long = NDArray[np.int64]
_Mask = NDArray[np.bool_]

# The part of a key that holds the position, counted downwards.
_LAST = (1 << 32) - 1
_LOCAL = RANGE - 1
# Sums that are compared together, by instructions that take many at once, before each of them is.
_BLOCK = 64
# Below this share of the range's passages, those that were added to are visited one by one instead of all sums.
_SPARSE = 16
# One lookup by binary search costs as much as adding this many postings in passing.
_LOOKUP = 8
_ABSENT, _BROKEN = -1, -2
# Columns of the lists of one range.
_WHERE, _LENGTH, _WHAT, _UNIT, _MOST = range(5)


@compiled
def _found(words: _Words, layout: _Long, number: int, token: int) -> int:
    """The number of a token's list in a range, `_ABSENT` or `_BROKEN`."""
    group = layout[number, FIRST] + token // GROUP
    low, high = int(words[group]), int(words[group + 1])
    if not 0 <= low <= high <= layout[number, LISTS]:
        return _BROKEN
    names = layout[number, TOKENS]
    while low < high:
        middle = (low + high) // 2
        if words[names + middle] < token:
            low = middle + 1
        else:
            high = middle
    if low < layout[number, LISTS] and words[names + low] == token:
        starts = layout[number, STARTS] + low
        if not 0 <= words[starts] <= words[starts + 1] <= layout[number, POSTINGS]:
            return _BROKEN
        return low
    return _ABSENT


@compiled
def _lower(shorts: _Shorts, low: int, high: int, position: int) -> int:
    """The first place from `low` to `high` whose position is not below this one."""
    while low < high:
        middle = (low + high) // 2
        if shorts[middle] < position:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _added(sums: NDArray[np.int32], where: _Shorts, what: _Bytes, unit: int) -> None:
    """Adds what one list gives. Over arrays of its own, which is more than twice as fast as over parts of the file's."""
    for at in range(len(where)):
        sums[where[at] & _LOCAL] += unit * what[at]


@compiled
def _reached(sums: NDArray[np.int32], least: int) -> bool:
    """Whether one of `_BLOCK` sums is at least this large."""
    bound = np.int32(least)
    hit = np.int32(0)
    for at in range(_BLOCK):
        hit |= np.int32(sums[at] >= bound)
    return bool(hit != 0)


@compiled
def _kept(heap: _Long, held: int, key: int) -> int:
    """Puts a key into the heap of the largest, smallest first, if it belongs there; how many there are then."""
    if held < len(heap):
        at = held
        held += 1
        while at > 0 and heap[(at - 1) // 2] > key:
            heap[at] = heap[(at - 1) // 2]
            at = (at - 1) // 2
        heap[at] = key
    elif key > heap[0]:
        at = 0
        while 2 * at + 1 < held:
            child = 2 * at + 1
            if child + 1 < held and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= key:
                break
            heap[at] = heap[child]
            at = child
        heap[at] = key
    return held


@compiled
def _gathered(bytes_: _Bytes, words: _Words, layout: _Long, number: int, tokens: _Long, units: _Long, lists: _Long) -> int:
    """Fills `lists` with the range's lists of these tokens, the one that can add most first: where its positions begin, how many
    there are, where its impacts begin, its unit, the most it can add. How many lists there are, or `_BROKEN`."""
    count = 0
    for which in range(len(tokens)):
        at = _found(words, layout, number, tokens[which])
        if at == _BROKEN:
            return _BROKEN
        if at != _ABSENT:
            most = units[which] * bytes_[layout[number, PEAKS] + at]
            place = count
            while place > 0 and lists[place - 1, _MOST] < most:
                lists[place] = lists[place - 1]
                place -= 1
            begin, end = words[layout[number, STARTS] + at], words[layout[number, STARTS] + at + 1]
            lists[place, _WHERE], lists[place, _WHAT] = layout[number, POSITIONS] + begin, layout[number, IMPACTS] + begin
            lists[place, _LENGTH], lists[place, _UNIT], lists[place, _MOST] = end - begin, units[which], most
            count += 1
    return count


@compiled
def _candidates(sums: NDArray[np.int32], shorts: _Shorts, lists: _Long, least: int, found: _Long, part: _Long) -> int:
    """Fills `found` with the local positions whose sum, of these lists, is at least `least`, and `part` with the sums; sets all
    sums back to 0. How many there are."""
    count = 0
    if lists[:, _LENGTH].sum() * _SPARSE < RANGE:
        for which in range(len(lists)):
            where = shorts[lists[which, _WHERE]:lists[which, _WHERE] + lists[which, _LENGTH]]
            for at in range(len(where)):
                position = where[at] & _LOCAL
                if sums[position] >= least:
                    found[count], part[count] = position, sums[position]
                    count += 1
                sums[position] = 0
        return count
    for block in range(0, RANGE, _BLOCK):
        if _reached(sums[block:block + _BLOCK], least):
            for position in range(block, block + _BLOCK):
                if sums[position] >= least:
                    found[count], part[count] = position, sums[position]
                    count += 1
    sums[:] = 0
    return count


@compiled
def _let_through(allowed: _Mask, base: int, size: int, found: _Long, part: _Long, count: int) -> int:
    """Moves those that `allowed` lets through to the front; how many there are, or `_BROKEN` for a passage that is not there."""
    keep = 0
    for each in range(count):
        if base + found[each] >= size:
            return _BROKEN
        if len(allowed) == 0 or allowed[base + found[each]]:
            found[keep], part[keep] = found[each], part[each]
            keep += 1
    return keep


@compiled
def _refined(sums: NDArray[np.int32], bytes_: _Bytes, shorts: _Shorts, lists: _Long, rest: _Long, least: int, found: _Long,
             part: _Long, count: int) -> int:
    """Adds what these lists give to the candidates, moving those to the front that `rest`, what the lists after each one can
    add at most, can still lift to `least`; how many there are."""
    for which in range(len(lists)):
        if count == 0:
            break
        begin, length, unit = lists[which, _WHERE], lists[which, _LENGTH], lists[which, _UNIT]
        where, what = shorts[begin:begin + length], bytes_[lists[which, _WHAT]:lists[which, _WHAT] + length]
        in_passing = count * _LOOKUP >= length
        if in_passing:
            _added(sums, where, what, unit)
        keep = 0
        for each in range(count):
            score = part[each]
            if in_passing:
                score += sums[found[each]]
            else:
                at = _lower(where, 0, length, found[each])
                if at < length and where[at] == found[each]:
                    score += unit * what[at]
            if score + rest[which + 1] >= least:
                found[keep], part[keep] = found[each], score
                keep += 1
        if in_passing:
            for at in range(length):
                sums[where[at] & _LOCAL] = 0
        count = keep
    return count


@compiled
def best(bytes_: _Bytes, shorts: _Shorts, words: _Words, layout: _Long, size: int, tokens: _Long, units: _Long, k: int,
         allowed: _Mask, floor: int) -> tuple[_Long, bool]:
    """Keys of the best `k` (at least 1) with a score of at least `floor` (at least 1), best first; False for a broken file.
    `allowed`: of length `size`, or empty where all are. MaxScore a range at a time: see `retrievers.sparse`."""
    heap, held = np.empty(k, np.int64), 0
    sums = np.zeros(RANGE, np.int32)
    found, part = np.empty(RANGE, np.int64), np.empty(RANGE, np.int64)
    lists, rest = np.empty((len(tokens), 5), np.int64), np.zeros(len(tokens) + 1, np.int64)
    for number in range(len(layout)):
        count = _gathered(bytes_, words, layout, number, tokens, units, lists)
        if count == _BROKEN:
            return heap[:0], False
        # What the lists from each one on can add at most.
        rest[count] = 0
        for which in range(count - 1, -1, -1):
            rest[which] = rest[which + 1] + lists[which, _MOST]
        # Later positions lose ties: to enter, a score must exceed the worst of k.
        least = max(floor, (heap[0] >> 32) + 1) if held == k else floor
        if rest[0] < least:
            continue
        # The lists from `needed` on cannot lift a passage into the best k by themselves.
        needed = count
        while rest[needed - 1] < least:
            needed -= 1
        for which in range(needed):
            begin, length, what = lists[which, _WHERE], lists[which, _LENGTH], lists[which, _WHAT]
            _added(sums, shorts[begin:begin + length], bytes_[what:what + length], lists[which, _UNIT])
        passages = _candidates(sums, shorts, lists[:needed], least - rest[needed], found, part)
        passages = _let_through(allowed, number * RANGE, size, found, part, passages)
        if passages == _BROKEN:
            return heap[:0], False
        passages = _refined(sums, bytes_, shorts, lists[needed:count], rest[needed:], least, found, part, passages)
        for each in range(passages):
            held = _kept(heap, held, (part[each] << 32) | (_LAST - (number * RANGE + found[each])))
    return np.sort(heap[:held])[::-1], True


@compiled
def best_of_all(bytes_: _Bytes, shorts: _Shorts, words: _Words, layout: _Long, size: int, tokens: _Long, units: _Long, k: int,
                allowed: _Mask) -> tuple[_Long, bool]:
    """As `best` without a floor, adding up every posting of every token: what pruning is compared with."""
    heap, held = np.empty(k, np.int64), 0
    sums = np.zeros(RANGE, np.int32)
    for number in range(len(layout)):
        positions, impacts, base = layout[number, POSITIONS], layout[number, IMPACTS], number * RANGE
        for which in range(len(tokens)):
            at = _found(words, layout, number, tokens[which])
            if at == _BROKEN:
                return heap[:0], False
            if at != _ABSENT:
                starts = layout[number, STARTS] + at
                _added(sums, shorts[positions + words[starts]:positions + words[starts + 1]],
                       bytes_[impacts + words[starts]:impacts + words[starts + 1]], units[which])
        for position in range(RANGE):
            if sums[position] > 0:
                if base + position >= size:
                    return heap[:0], False
                if len(allowed) == 0 or allowed[base + position]:
                    held = _kept(heap, held, (int(sums[position]) << 32) | (_LAST - (base + position)))
        sums[:] = 0
    return np.sort(heap[:held])[::-1], True


@compiled
def impacts_at(bytes_: _Bytes, shorts: _Shorts, words: _Words, layout: _Long, tokens: _Long, places: _Long) -> tuple[_Bytes, bool]:
    """The impact of each token in each of these positions, which ascend (repeats allowed) and are there; 0 where it is not in it.
    Shape (positions, tokens). False for a broken file."""
    found = np.zeros((len(places), len(tokens)), np.uint8)
    first = 0
    while first < len(places):
        number = places[first] // RANGE
        last = first
        while last < len(places) and places[last] // RANGE == number:
            last += 1
        positions, impacts = layout[number, POSITIONS], layout[number, IMPACTS]
        for which in range(len(tokens)):
            at = _found(words, layout, number, tokens[which])
            if at == _BROKEN:
                return found, False
            if at != _ABSENT:
                starts = layout[number, STARTS] + at
                low, high = positions + words[starts], positions + words[starts + 1]
                for each in range(first, last):
                    low = _lower(shorts, low, high, places[each] - number * RANGE)  # places ascend
                    if low < high and shorts[low] == places[each] - number * RANGE:
                        found[each, which] = bytes_[impacts + low - positions]
        first = last
    return found, True
