"""Scores without a judge: what an edited picture shows, measured against what the simulator knows to be true."""
