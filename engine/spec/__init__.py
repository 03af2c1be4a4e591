"""What a model's file means: its architecture, tensors, rope, and the recipes of quantised files."""
