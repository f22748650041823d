#!/bin/bash
# Trains a recipe in N processes that mpirun starts, one per GPU, or one per node without GPUs.   N=2 deploy/mpirun.sh
# vdmkit[mpi] must be installed, and an MPI. MPI only starts the processes; they talk by JAX's runtime.
set -euo pipefail
exec mpirun -n "${N:?how many}" vdmkit run "${RECIPE:-digits}" --out "${OUT:-runs/digits}" \
    --distributed mpi4py --processes "$N"
