"""What every HTTP route needs: bodies, errors, events, deadlines, the outermost layer."""
