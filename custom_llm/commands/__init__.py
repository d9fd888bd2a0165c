"""The commands: the parser and the main of each."""
