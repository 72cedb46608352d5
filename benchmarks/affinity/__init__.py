"""Hit rates of the replicas' caches, and how even their load is, by how replicas are chosen."""
