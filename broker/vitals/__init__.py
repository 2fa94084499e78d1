"""How the broker itself is: its loop, its memory, its descriptors, and whether new work is welcome."""
