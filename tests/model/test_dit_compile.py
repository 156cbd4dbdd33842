from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def test_compiles_whole(random_dit: Any, dit_inputs: Any, assert_close: Any) -> None:
    """One graph, without a break, in both ways of giving the prompt; within 1e-5 of the plain forward."""
    dit, inputs = random_dit(num_layers=1), dit_inputs(text_len=32)
    kv = dit.prompt_kv(inputs.text, text_lengths=inputs.lengths)
    first = inputs.hidden_states, inputs.timestep
    torch.compiler.reset()
    graph = torch.compile(dit, fullgraph=True, backend="aot_eager")
    assert_close(graph(*inputs.plain).sample, dit(*inputs.plain).sample, 1e-5)
    code = torch.compile(dit, fullgraph=True)
    assert_close(code(*first, prompt_kv=kv).sample, dit(*first, prompt_kv=kv).sample, 1e-5)
