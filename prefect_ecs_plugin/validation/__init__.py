"""What ECS accepts; limits of YAML texts and of what a message repeats."""
