"""The gateway: one photo in, the emotions of every face out."""

__version__ = "0.1.0"
