"""The built-in plugins: single files, loaded by path exactly as a drop-in is."""
