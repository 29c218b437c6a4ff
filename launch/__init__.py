"""Many runs side by side, for sweep.py and reproduce.py: worker processes, a plan of what is left, Ray."""
