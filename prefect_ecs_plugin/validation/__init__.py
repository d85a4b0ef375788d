"""What ECS accepts, what a text may cost, and how much of it a message repeats."""
