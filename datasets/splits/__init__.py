"""Which items are trained on, validated on and tested on: split files, few-shot draws, lists of items."""
