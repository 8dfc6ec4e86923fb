"""What a compiled graph needs while it runs."""
