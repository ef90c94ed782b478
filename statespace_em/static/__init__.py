"""The same engine without time."""
