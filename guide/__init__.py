"""The training pipeline of `guide`, the small chat model that is built into MultiModel."""
