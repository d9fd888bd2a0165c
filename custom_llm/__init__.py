"""From a text file to a language model of one's own, in four steps: question, training, conversion, text."""

__version__ = "0.1.0"
