"""What is predicted: targets, losses, predictions from logits, metrics."""
