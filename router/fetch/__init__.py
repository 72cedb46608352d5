"""Images by URL: what a client's address may lead to, and how it is downloaded."""
