"""Settings from a YAML file, the environment and flags, with every mistake reported at its place."""
