"""What happens after a launch: watching tasks, supervising runs, recovery, metrics."""
