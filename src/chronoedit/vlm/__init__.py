"""Vision-language models: a client, what they are asked, and how their answers are checked."""
