"""The training pipeline of `guide`, the small chat model that is built into MultiModel."""

import os

# Threads that spin while they wait make training many times slower when the machine has other work.
# OpenMP reads this once, when torch is first imported, so it has to be set here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
