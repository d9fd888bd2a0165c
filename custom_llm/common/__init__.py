"""What every part may use: errors, files, progress, signals, the machine."""
