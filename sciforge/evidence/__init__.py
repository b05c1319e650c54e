"""What a model is worth and what it costs: curves, forgetting, sparsity, privacy, invariance, schedules, verification."""
