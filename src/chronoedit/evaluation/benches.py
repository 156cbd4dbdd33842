"""The benchmarks of edits that can be run: their files, questions and figures."""

from __future__ import annotations

from chronoedit.evaluation import bench_formats as formats
from chronoedit.evaluation import bench_prompts as prompts
from chronoedit.evaluation import bench_scores as scores
from chronoedit.evaluation.cases import Bench

BENCHES: dict[str, Bench] = {
    bench.name: bench
    for bench in (
        Bench(
            name="pbench-edit",
            source="PBench-Edit as the ChronoEdit paper describes it (arXiv 2510.04290); nvidia/PBench on the hub",
            criteria=scores.PBENCH,
            scale=prompts.ONE_TO_FIVE,
            read=formats.read_pbench_edit,
            questions=prompts.pbench_questions,
            aggregate={"official": scores.pbench_official, "strict": scores.pbench_strict},
        ),
        Bench(
            name="imgedit",
            source="PKU-YuanGroup/ImgEdit, Benchmark/Basic: basic_edit.json",
            criteria=scores.IMGEDIT,
            scale=prompts.ONE_TO_FIVE,
            read=formats.read_imgedit,
            questions=prompts.imgedit_questions,
            aggregate={"official": scores.imgedit_official, "strict": scores.imgedit_strict},
        ),
        Bench(
            name="gedit",
            source="stepfun-ai/Step1X-Edit, GEdit-Bench: the parquet files of stepfun-ai/GEdit-Bench on the hub",
            criteria=scores.GEDIT,
            scale=prompts.ZERO_TO_TEN,
            read=formats.read_gedit,
            questions=prompts.gedit_questions,
            aggregate={"official": scores.gedit_official, "strict": scores.gedit_strict},
        ),
        Bench(
            name="rise",
            source="PhoenixZ810/RISEBench: datav2_total_w_subtask.json",
            criteria=scores.RISE,
            scale=prompts.ONE_TO_FIVE,
            read=formats.read_rise,
            questions=prompts.rise_questions,
            aggregate={"official": scores.rise_official, "strict": scores.rise_strict},
        ),
        Bench(
            name="kris",
            source="mercurystraw/Kris_Bench: KRIS_Bench/CATEGORY/annotation.json",
            criteria=scores.KRIS,
            scale=prompts.ONE_TO_FIVE,
            read=formats.read_kris,
            questions=prompts.kris_questions,
            aggregate={"official": scores.kris_official, "strict": scores.kris_strict},
        ),
    )
}


def bench_named(name: str) -> Bench:
    """The benchmark of that name. Raises ValueError, with the choices, when there is none."""
    if name not in BENCHES:
        raise ValueError(f"there is no benchmark {name}; choose one of {', '.join(BENCHES)}")
    return BENCHES[name]
