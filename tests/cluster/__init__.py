"""A shop on a Redis Cluster of six nodes: exact all the same, whatever the cluster does."""
