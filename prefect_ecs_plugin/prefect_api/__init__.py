"""The Prefect side: the client, run states and what the agent reports."""
