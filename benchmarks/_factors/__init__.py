"""The parts of `factors.py`: data, the peer, and one module per table."""
