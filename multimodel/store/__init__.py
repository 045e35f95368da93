"""What is kept between two runs of the app: conversations, in one SQLite file of the user's data folder."""

from .store import Record, Store

__all__ = ["Record", "Store"]
