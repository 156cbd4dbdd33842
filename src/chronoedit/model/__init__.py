"""The networks, and what goes in and out of them."""
