"""The vision encoder that three of the miniatures start from, trained alone on dense labels."""
