"use strict";
/* N-gram models for models.js: the counts of every order, and the estimators of charlm/ngrams.

   A history is a number: history h of order n + 1 is event h of order n. The events of a history stand one after the
   other, by the id that each adds to it. */
models.kinds.ngram = (description, array) => {
  const { symbols, order, smoothing, parameters } = description;
  const levels = description.levels.map((level) => {
    const types = array(level.types);
    const first = new Uint32Array(types.length + 1);
    types.forEach((count, history) => { first[history + 1] = first[history] + count; });
    return { first, ids: array(level.ids), counts: array(level.counts), preceding: level.preceding && array(level.preceding),
      discounts: level.discounts };
  });
  const nodes = new Int32Array(order + 1); // of the last 0, 1, ..., order symbols; -1 for those that never occur
  let read = 0;
  let undefinedRow = false;
  const row = new Float64Array(symbols);

  function begin() {
    nodes.fill(-1);
    nodes[0] = 0;
    read = 0;
  }

  /* The event that a history and the next symbol make, or -1: a search in a sorted list. */
  function child({ first, ids }, history, id) {
    if (history < 0 || id < 0) return -1;
    let low = first[history];
    let high = first[history + 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ids[middle] < id) low = middle + 1;
      else high = middle;
    }
    return low < first[history + 1] && ids[low] === id ? low : -1;
  }

  const sizeOf = ({ first }, history) => (history < 0 ? 0 : first[history + 1] - first[history]);

  function total(level, history) {
    let sum = 0;
    if (history >= 0) for (let at = level.first[history]; at < level.first[history + 1]; at += 1) sum += level.counts[at];
    return sum;
  }

  /* Witten-Bell and Kneser-Ney: what is kept of each count, and the rest for the next shorter history. */
  function addLevel(p, level, history, isTop) {
    const begin = level.first[history];
    const end = level.first[history + 1];
    const counts = isTop || !level.preceding ? level.counts : level.preceding;
    const discounts = level.discounts && [0, ...level.discounts[isTop ? "top" : "below"]];
    let sum = 0;
    let left = 0;
    for (let at = begin; at < end; at += 1) {
      sum += counts[at];
      left += discounts ? discounts[Math.min(counts[at], 3)] : 1;
    }
    if (!discounts) sum += left;
    if (!(sum > 0)) return;
    for (let id = 0; id < symbols; id += 1) p[id] *= left / sum;
    for (let at = begin; at < end; at += 1) {
      p[level.ids[at]] += (counts[at] - (discounts ? discounts[Math.min(counts[at], 3)] : 0)) / sum;
    }
  }

  function interpolated(p) {
    p.fill(1 / symbols);
    for (let n = 0; n <= order; n += 1) {
      if (nodes[n] >= 0) addLevel(p, levels[n], nodes[n], read <= n || n === order);
    }
  }

  /* The estimators that look at one order: the probability from a count and the total of its history. */
  const formulas = {
    none: (count, sum) => count / sum,
    "add-k": (count, sum) => (count + parameters.k) / (sum + parameters.k * symbols),
    "uniform-mix": (count, sum) =>
      sum ? (1 - parameters.weight) * (count / sum) + parameters.weight / symbols : 1 / symbols,
  };

  function counted(p, longest) {
    let n = Math.min(read, order);
    while (longest && n > 0 && !total(levels[n], nodes[n])) n -= 1;
    const level = levels[n];
    const sum = total(level, nodes[n]);
    undefinedRow = smoothing === "none" && !sum;
    p.fill(formulas[smoothing](0, sum));
    for (let i = 0; i < sizeOf(level, nodes[n]); i += 1) {
      const at = level.first[nodes[n]] + i;
      p[level.ids[at]] = formulas[smoothing](level.counts[at], sum);
    }
  }

  function logRow(longest) {
    if (smoothing in formulas) counted(row, longest || parameters.longest);
    else interpolated(row);
    for (let id = 0; id < symbols; id += 1) row[id] = Math.log(row[id]);
    return row;
  }

  return {
    begin,
    read(id) {
      for (let n = order; n > 0; n -= 1) nodes[n] = child(levels[n - 1], nodes[n - 1], id);
      read += 1;
      return logRow(false);
    },
    rowToDraw(found) {
      if (!undefinedRow) return found;
      const longest = logRow(true).slice();
      undefinedRow = true; // that of the whole history stays so
      return longest;
    },
    save: () => ({ nodes: nodes.slice(), read, undefinedRow }),
    restore: (saved) => {
      nodes.set(saved.nodes);
      ({ read, undefinedRow } = saved);
    },
    units: () => [],
  };
};
