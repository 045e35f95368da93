"""The training pipeline of `encoder`, the small DistilBERT that is built into MultiModel."""

import guide  # noqa: F401 - sets how threads wait, which torch reads once, when it is first imported
