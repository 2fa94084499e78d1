/** The console: which panel is shown, and who looks at it. */
