"""The Hub: what is there, what one repository holds, and what to do where it refuses."""

from .listing import Listing, Page, Query, Sort, search
from .repository import Model, RemoteFile, Repository, access, card, config, model, repository

__all__ = [
    "Listing",
    "Model",
    "Page",
    "Query",
    "RemoteFile",
    "Repository",
    "Sort",
    "access",
    "card",
    "config",
    "model",
    "repository",
    "search",
]
