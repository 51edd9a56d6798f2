"""How a streaming job starts again: the plan, its checks, and the choice of the offsets."""
