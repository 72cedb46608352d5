"""What the formats share in which a request is a conversation: the questions asked of it, and what is answered."""
