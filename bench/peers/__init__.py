"""What runs in a process of its own because it is no part of Tidewatch; imports no more than it needs."""
