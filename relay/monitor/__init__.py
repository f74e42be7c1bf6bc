"""What the operator sees: metrics, log, health."""
