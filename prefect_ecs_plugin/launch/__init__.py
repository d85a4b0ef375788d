"""The way of one run from the queue to its task."""
