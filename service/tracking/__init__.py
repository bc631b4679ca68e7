"""Faces over time: which box is whose, and probabilities smoothed. Pure; no image comes in here."""
