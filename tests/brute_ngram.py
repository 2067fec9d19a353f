"""N-gram models as the textbook writes them: dicts of counts, symbol by symbol, to compare with."""

from collections import Counter


class Brute:
    """Counts of all strings of a text's spans, and the estimators' formulas over them."""

    def __init__(self, spans, symbols, depth):
        self.symbols = symbols
        self.spans = [tuple(span) for span in spans]
        self.count = Counter()
        self.before = {}
        for span in self.spans:
            for start in range(len(span)):
                for end in range(start + 1, min(start + depth, len(span)) + 1):
                    self.count[span[start:end]] += 1
                    left = span[start - 1] if start else "beginning"
                    self.before.setdefault(span[start:end], set()).add(left)
        self.adjusted = {string: len(left) for string, left in self.before.items()}

    def total(self, history, count=None):
        count = self.count if count is None else count
        return sum(count.get((*history, c), 0) for c in range(self.symbols))

    def used(self, text, order):
        return tuple(text[max(0, len(text) - order) :])

    def longest(self, text, order):
        history = self.used(text, order)
        while history and not self.total(history):
            history = history[1:]
        return history

    def row(self, name, text, order, *, k=1.0, weight=0.1, longest=False):
        """P(each symbol) after the text read so far; None where undefined."""
        history = self.longest(text, order) if longest else self.used(text, order)
        if name == "witten-bell":
            return [self.witten_bell(history, c) for c in range(self.symbols)]
        if name == "kneser-ney":
            return [self.kneser_ney(history, c, top=True) for c in range(self.symbols)]
        total = self.total(history)
        counts = [self.count.get((*history, c), 0) for c in range(self.symbols)]
        if name == "add-k":
            return [(n + k) / (total + k * self.symbols) for n in counts]
        if name == "uniform-mix":
            if not total:
                return [1 / self.symbols] * self.symbols
            return [(1 - weight) * n / total + weight / self.symbols for n in counts]
        return [n / total for n in counts] if total else None

    def witten_bell(self, history, c):
        shorter = self.witten_bell(history[1:], c) if history else 1 / self.symbols
        total = self.total(history)
        if not total:
            return shorter
        types = sum(self.count.get((*history, x), 0) > 0 for x in range(self.symbols))
        return (self.count.get((*history, c), 0) + types * shorter) / (total + types)

    def kneser_ney(self, history, c, *, top):
        shorter = self.kneser_ney(history[1:], c, top=False) if history else 1 / self.symbols
        table = self.count if top else self.adjusted
        total = self.total(history, table)
        if not total:
            return shorter
        discounts = self.discounts(len(history) + 1, top=top)
        following = [table.get((*history, x), 0) for x in range(self.symbols)]
        taken = sum(discounts[min(n, 3)] for n in following)
        n = table.get((*history, c), 0)
        return (n - discounts[min(n, 3)]) / total + taken / total * shorter

    def discounts(self, length, *, top):
        table = self.count if top else self.adjusted
        of = Counter(n for string, n in table.items() if len(string) == length)
        if not all(of[i] for i in (1, 2, 3, 4)):
            return [0, 0.5, 1.0, 1.5]
        y = of[1] / (of[1] + 2 * of[2])
        found = [0] + [i - (i + 1) * y * of[i + 1] / of[i] for i in (1, 2, 3)]
        return found if all(0 <= found[i] <= i for i in (1, 2, 3)) else [0, 0.5, 1.0, 1.5]
