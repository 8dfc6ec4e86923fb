"""The CPU back end's run-time support."""
