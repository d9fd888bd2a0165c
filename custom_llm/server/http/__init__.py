"""What stands between the network and the addresses: HTTP, guards, errors in OpenAI's shape."""
