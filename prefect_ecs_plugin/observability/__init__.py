"""What operators see: counters, log lines, health, outages; with secrets redacted."""
