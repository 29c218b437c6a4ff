"""Dassl's names on this project's engine: a trainer file that was written for CoOp's original code runs as it is.

A thin facade: what is the same is passed on, what differs is adapted at the line that says so. A name stands in the
module in which Dassl has it, and its package passes it on. What Dassl has beyond it (domains, unlabelled data, its own
networks) is not here, and importing it fails by its name.
"""
