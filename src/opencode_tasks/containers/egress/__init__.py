"""What runs in the sidecar, and the forwarder in each task's container: handed over as text, standard library only."""
