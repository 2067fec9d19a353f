#!/usr/bin/env bash
# Everything that is to be known of charlm on a GPU, in one call of under ten minutes.
#
#     benchmarks/first_light.sh [RESULTS [TEXT]]           all checks and figures
#     benchmarks/first_light.sh --best [RESULTS [TEXT]]    the best model of ten minutes, a call of its own
#
# RESULTS is a directory for the files (by default ./first-light), TEXT a text for training (by default the bundled
# drama; tinyshakespeare.txt gives figures that compare with published ones). Each step writes a file NAME.txt with its
# output, and a line into summary.tsv: name, exit status, seconds. A step that fails does not stop the others.
# Run it in a checkout, in an environment where charlm, pytest and hypothesis are installed. On a machine without a GPU
# it runs the same steps on the CPU, which tests the script itself: DEVICE=cpu benchmarks/first_light.sh.
set -u
best=
if [ "${1:-}" = --best ]; then best=yes; shift; fi
results=${1:-first-light}
text=${2:-data/shakespeare.txt}
device=${DEVICE:-cuda}
python=${PYTHON:-python3}
mkdir -p "$results"
results=$(cd "$results" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
charlm() { "$python" -m charlm "$@"; }
printf 'step\tstatus\tseconds\n' > "$results/summary.tsv"

step() { # NAME SECONDS COMMAND...: runs a command for so many seconds at most
    local name=$1 limit=$2 status begun
    shift 2
    begun=$(date +%s)
    if [ "$(type -t "$1")" = function ]; then
        ("$@") > "$results/$name.txt" 2>&1 &
    else
        timeout "$limit" "$@" > "$results/$name.txt" 2>&1 &
    fi
    local process=$!
    (sleep "$limit" && kill "$process" 2> /dev/null) &
    local watchdog=$!
    wait "$process"
    status=$?
    kill "$watchdog" 2> /dev/null
    printf '%s\t%s\t%s\n' "$name" "$status" "$(($(date +%s) - begun))" | tee -a "$results/summary.tsv"
}

machine() { # card, driver, versions, commit
    nvidia-smi 2> /dev/null
    "$python" -c 'import sys, torch; from charlm.nn.kernels import facts
print(sys.version); print(facts(torch.device(sys.argv[1])))' "$device"
    git rev-parse HEAD 2> /dev/null
    git status --short 2> /dev/null | head -5
}

train_and_read() { # one minute of training by the defaults, then every command that reads the model
    charlm train "$text" --split 90/10/0 --minutes "${MINUTES:-1}" --device "$device" --out "$work/minute" &&
        charlm eval "$work/minute" "$text" --device "$device" --json &&
        charlm eval "$work/minute" "$text" --device cpu --json && # a model of the GPU opened on a CPU
        charlm sample "$work/minute" --length 400 --device "$device" --seed 1 &&
        charlm compare "$text" "$work/minute" --orders 1,3,5 --split 90/10/0 --device "$device" &&
        charlm train --resume "$work/minute" --max-steps 20000 --minutes 0.1 --device cpu # and back, on the CPU
}

resume_to_the_bit() { # 40 steps in one go, and 20 + 20: the weights must be equal to the bit
    local options=(--model gru --layers 2 --hidden 64 --batch-size 16 --seq-length 32 --seed 3 --device "$device" --backend torch)
    charlm train "$text" "${options[@]}" --max-steps 40 --out "$work/whole" &&
        charlm train "$text" "${options[@]}" --max-steps 20 --out "$work/pieces" &&
        charlm train --resume "$work/pieces" --max-steps 40 --device "$device" &&
        charlm train "$text" "${options[@]}" --max-steps 40 --out "$work/again" || return 1
    "$python" - "$work" << 'PY'
import sys
from pathlib import Path

import torch

from charlm.tensors import read_tensors

found = {name: read_tensors(Path(sys.argv[1], name, "last.safetensors"))[0] for name in ("whole", "pieces", "again")}
for other in ("again", "pieces"):
    same = all(torch.equal(found["whole"][key], found[other][key]) for key in found["whole"])
    print(f"whole and {other}: {'equal to the bit' if same else 'DIFFERENT'}")
PY
}

fit_and_predict() { # a Distribution on a table
    "$python" - "$work/table.csv" << 'PY'
import random
import sys

random.seed(0)
with open(sys.argv[1], "w") as file:
    file.write("text,label\n")
    for _ in range(2000):
        word = "".join(random.choice("ab") for _ in range(12))
        file.write(f"{word},{'even' if word.count('a') % 2 == 0 else 'odd'}\n")
PY
    charlm fit "$work/table.csv" --max-steps 400 --device "$device" --out "$work/fit" &&
        charlm predict "$work/fit" "$work/table.csv" --device "$device" --out "$work/said.csv"
}

out_of_memory() { # must end in one sentence and exit status 1
    charlm train "$text" --hidden 65536 --layers 8 --batch-size 4096 --max-steps 2 --device "$device" --out "$work/big"
    local status=$?
    echo "exit status $status (1 is right)"
    [ "$status" -eq 1 ]
}

if [ -n "$best" ]; then
    step machine 60 machine
    best_in_ten() {
        charlm train "$text" --split 90/10/0 --minutes "${MINUTES:-9}" --device "$device" --out "$work/best" ${OPTIONS:-} &&
            charlm eval "$work/best" "$text" --device "$device" --json && cp -r "$work/best" "$results/best"
    }
    step best 595 best_in_ten
    exit 0
fi

step machine 60 machine
step tests 150 "$python" -m pytest -q -n 0 tests/nn/test_cuda.py tests/nn/test_triton.py tests/nn/test_graph_generate.py tests/training/test_graphed.py
step selfcheck 60 charlm selfcheck
step train 130 train_and_read
step resume 60 resume_to_the_bit
step fit 45 fit_and_predict
if [ "$device" = cuda ]; then
    step memory 40 out_of_memory
    step train-speed 170 "$python" -m benchmarks.train_speed --device cuda --seconds 0.2 --precision fp32 --precision tf32 --precision bf16
    step sample-speed 60 "$python" -m benchmarks.sample_speed --device cuda --seconds 0.5 --streams 1 --streams 64 --streams 4096
fi
cat "$results/summary.tsv"
