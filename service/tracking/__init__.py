"""Faces over time: tracks and smoothed probabilities, from numbers alone, without images."""
