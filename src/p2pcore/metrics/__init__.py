"""What an operator sees of a host: metrics, health, and the access log.

Comes in: events of the swarm, numbers that its parts keep. Goes out: families of samples, Prometheus text,
answers to HTTP requests, log records. Nothing here changes what a host does. See docs/metrics.md.
"""
