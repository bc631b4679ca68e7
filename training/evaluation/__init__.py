"""What a trained network is worth. docs/evaluation.md says what each figure means."""
