"""What a trained network is worth. docs/explanation/evaluation.md says what each figure means."""
