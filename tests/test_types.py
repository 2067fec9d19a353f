"""The API is typed: what the example of the documentation makes has a type that mypy knows."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = '''
import charlm

text = charlm.read_text("data/shakespeare.txt")
ngram = charlm.ngram(text, order=5, smoothing="kneser-ney")
gru = charlm.train(text, layers=3, minutes=4)
figures = gru.evaluate(text.test)
sample = gru.sample("QUILL:\\n", length=300, temperature=0.8, seed=1)
several = gru.sample(streams=8)
top = gru.next("to b").top(5)
score = gru.score("to be or not")
table = charlm.compare(text, [ngram, gru])
path = gru.save("checkpoints/x")
again = charlm.load("checkpoints/x")
mixed = charlm.mix([gru, ngram]).evaluate(text.test)
p = charlm.SequenceClassifier(cell="gru").fit(["ab"], ["x"]).predict_proba(["ba"])
said = charlm.SequenceScorer(cell="lstm").fit([[1.0, 2.0]], [0.5]).predict([[2.0]])
'''
NAMES = [line.split(" = ")[0] for line in EXAMPLE.splitlines() if " = " in line]


@pytest.mark.slow
def test_the_example_has_types_under_mypy_strict(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(EXAMPLE + "".join(f"reveal_type({name})\n" for name in NAMES))
    command = [sys.executable, "-m", "mypy", "--strict", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout
    revealed = [line.split('Revealed type is "')[1] for line in done.stdout.splitlines() if "Revealed type" in line]
    assert len(revealed) == len(NAMES)
    assert not [kind for kind in revealed if kind.startswith("Any") or "[Any]" in kind]
