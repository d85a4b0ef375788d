"""Launches that wait without holding a thread, and the time they wait for."""
