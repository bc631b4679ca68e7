"""Measures a trained network. docs/explanation/evaluation.md says what each figure means."""
