"""What a checkpoint can do, as numbers: answers against the truth, clips against what was asked for."""
