"""What a person decides: plain dataclasses without torch."""
