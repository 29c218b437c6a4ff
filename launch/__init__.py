"""Many runs side by side, for sweep.py and reproduce.py: what is left to do, worker processes, Ray."""
