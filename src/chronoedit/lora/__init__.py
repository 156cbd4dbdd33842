"""LoRA files of several programs: read under our names, fused into the transformer's weights, and taken out again."""
