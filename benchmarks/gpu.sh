#!/bin/sh
# Measure nvisa on a GPU in less than 8 minutes: step time, share of peak, time to 98 % on MNIST, the slides' 3,000 epochs.
#
#   sh benchmarks/gpu.sh            writes benchmarks/records/scaling/gpu.json
#
# PYTHON names another interpreter with nvisa, NVISA_DATA_HOME the folder with mnist (nvisa data fetch mnist).
set -e
cd "$(dirname "$0")/.."
exec timeout 480 "${PYTHON:-python}" benchmarks/scaling/gpu.py "$@"
