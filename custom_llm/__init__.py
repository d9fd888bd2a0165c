"""From a text file to a language model of one's own, in four steps: question, training, conversion, text."""
