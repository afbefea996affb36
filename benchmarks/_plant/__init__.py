"""Parts of `plant.py`: servers and clients, each in a process of its own."""
