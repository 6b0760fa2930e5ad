"""What it takes to bring a model onto a board. Knows no pipeline and trains nothing."""
