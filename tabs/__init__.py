"""The interface: one module a tab, pure functions above and `build` below. Nothing here is known to the engine."""
