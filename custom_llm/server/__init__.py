"""A model behind OpenAI's addresses: requests in, one text at a time, answers whole or as a stream."""
