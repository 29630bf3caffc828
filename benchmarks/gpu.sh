#!/usr/bin/env bash
# What one CUDA GPU shows of this project, in at most nine minutes: the tests marked gpu, then benchmarks.gpu.
#
#     benchmarks/gpu.sh [WHEELS]
#
# It needs torch, transformers, PEFT, accelerate and pytest, and fetches nothing. WHEELS is a folder that
# `python -m benchmarks.gpu_wheels` made, for a machine without the rest. Figures: gpu.json in $OUT, by default
# benchmarks/results; then `python -m benchmarks.page`. DEVICE, SHAPES and SECONDS_LEFT restrict it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-$(test -x .venv/bin/python && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

if [ $# -gt 0 ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$1"/*.whl || exit 1
  export PYTHONPATH=$PWD:$site
fi

timeout 120 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu tests/llm/test_cuda.py
tests=$?
# 5: none was chosen.
test $tests -eq 0 -o $tests -eq 5 || echo "gpu.sh: expected the tests marked gpu to pass, got $tests" >&2

timeout 420 "$PYTHON" -m benchmarks.gpu --seconds "${SECONDS_LEFT:-390}" ${DEVICE:+--device "$DEVICE"} \
  ${SHAPES:+--shapes $SHAPES} --results "${OUT:-benchmarks/results}"
measured=$?
test $measured -eq 0 -a \( $tests -eq 0 -o $tests -eq 5 \)
