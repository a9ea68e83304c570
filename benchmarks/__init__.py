"""How fast, how large, how far: every figure the project claims of its speed, taken side by side in one run."""
