"""Options, files and URLs become settings."""
