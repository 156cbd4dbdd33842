"""From noise to latents: schedules, pure solvers, guidance and the denoising loop."""
