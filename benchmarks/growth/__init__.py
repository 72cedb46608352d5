"""How rates, times and CPU time of our system grow with the load, the images, the answers and the replicas."""
