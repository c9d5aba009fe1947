"""Files in and out, and what they hold."""
