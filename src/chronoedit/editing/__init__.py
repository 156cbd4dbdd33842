"""From a request to its result: sizes and inputs, the reasoning stage, the editor, batches and chains."""
