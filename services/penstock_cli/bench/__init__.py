"""`penstock bench`: what a server of the Open Inference Protocol does under load, as its clients see it."""
