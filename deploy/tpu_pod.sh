#!/bin/bash
# Trains a recipe on all hosts of a TPU slice: one process per host, which has four or eight chips.
#   TPU=my-slice ZONE=us-central2-b OUT=/mnt/shared/runs/vdm_cifar10 deploy/tpu_pod.sh
# vdmkit[tpu] must be installed on every host, and OUT be on storage that they share.
set -euo pipefail
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="vdmkit run ${RECIPE:-vdm_cifar10} --out $OUT --distributed auto"
