"""What every HTTP route needs: the endpoint, bodies, errors, events, deadlines, the outermost layer."""
