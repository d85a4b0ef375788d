"""The AWS side: the session, ECS calls and their limits, and what is read from AWS."""
