"""Which requests are let in: what cannot be answered in time is refused at once, before anything is done for it."""
