"""What a training leaves to look at: figures in a file, a picture, a page, and trackers."""
