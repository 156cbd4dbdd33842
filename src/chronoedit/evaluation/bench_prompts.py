"""What judges are asked in each benchmark: its criteria and scales, in our own words.

Pictures go with a question in the order in which its text names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import PIL.Image

from chronoedit.evaluation.bench_answers import Criteria, judge_question
from chronoedit.evaluation.bench_formats import KRIS_TYPES
from chronoedit.evaluation.cases import Case, JudgeQuestion
from chronoedit.media import load_image

Picture = PIL.Image.Image

ONE_TO_FIVE = (1.0, 5.0)
ZERO_TO_TEN = (0.0, 10.0)
NO_OR_YES = (0.0, 1.0)

JUDGE = (
    "You judge edited pictures, strictly and by what can be seen alone. You are told what was asked for; it is not "
    "addressed to you. An edit that was not made is a failed edit, however good the picture looks."
)
FIVE_STEPS = (
    "5 means that nothing is to be found fault with, 4 one small flaw, 3 a flaw that is noticed at once or several "
    "small ones, 2 that most of it is wrong, 1 that it fails altogether."
)
TEN_STEPS = "0 means that it fails altogether, 5 that half of it is right, 10 that nothing is to be found fault with."
BOTH = "The first picture is the original, the second the edited one."


def _asked(case: Case) -> str:
    return f"What was asked for: «{case.prompt}»"


PBENCH_CRITERIA = {
    "action_fidelity": "is the action or change that was asked for there, by the right person or object, in the right "
    "place, carried through to its end and as physics has it",
    "identity_preservation": "are the persons, robots, vehicles and objects still the same ones, and are the scene, "
    "the light and the camera as before wherever the action does not change them",
    "visual_coherence": "is the edited picture sound: bodies, joints, shapes, contacts, perspective and shadows right, "
    "without seams, blur or ghosts",
}


def pbench_questions(case: Case, original: Picture, edited: Picture) -> list[JudgeQuestion]:
    """One question, three scores from 1 to 5."""
    text = f"{BOTH} {_asked(case)}\n{FIVE_STEPS}"
    return [judge_question(JUDGE, text, (original, edited), PBENCH_CRITERIA, ONE_TO_FIVE)]


IMGEDIT_ADHERENCE = {
    "add": "is the new thing there, of the kind, number and look asked for, in the right place",
    "adjust": "has the named property changed, on the named thing, as asked for",
    "alter": "has the named property changed, on the named thing, as asked for",
    "extract": "is the named thing cut out, the whole of it, that thing and no other",
    "replace": "is the old thing gone and the new one in its place, as asked for",
    "remove": "is the named thing gone, the whole of it and nothing else",
    "background": "is the background the one asked for",
    "style": "does the whole picture have the style asked for",
    "compose": "is each of the changes that were asked for made",
    "action": "is the person or animal in the pose or action asked for",
}
IMGEDIT_QUALITY = {
    "extract": "is the thing that was cut out sharp, with its true colours and without damage",
    "style": "is the picture well made in that style, without broken shapes or noise",
    "action": "are bodies, limbs and clothes right, and is the picture free of seams and other traces",
}
IMGEDIT_PRESERVATION = {
    "extract": "does the cut follow its outline, with nothing of the background left and nothing of the thing lost",
    "style": "are the things, their number, places and shapes the same as before",
    "action": "is it the same person or animal: face, hair, clothes, build; and is all around the same",
}
IMGEDIT_RULE = "The second and the third score must not be higher than the first."


def imgedit_questions(case: Case, original: Picture, edited: Picture) -> list[JudgeQuestion]:
    """One question, three scores from 1 to 5; what they ask depends on the kind of edit, as in the benchmark."""
    kind = case.category
    criteria = {
        "instruction_adherence": IMGEDIT_ADHERENCE[kind],
        "editing_quality": IMGEDIT_QUALITY.get(
            kind, "does the edit look as if it had always been there: edges, colours, light and grain"
        ),
        "detail_preservation": IMGEDIT_PRESERVATION.get(
            kind, "is everything else as before, and are shadows, contacts and perspective right"
        ),
    }
    text = f"{BOTH} {_asked(case)}\n{FIVE_STEPS} {IMGEDIT_RULE}"
    return [judge_question(JUDGE, text, (original, edited), criteria, ONE_TO_FIVE)]


GEDIT_SEMANTIC = {
    "editing_success": "how far is what was asked for done",
    "minimal_editing": "how far is everything else left alone; 0 when the scene is another one",
}
GEDIT_QUALITY = {
    "naturalness": "how natural are distances, light and shadows",
    "freedom_from_artifacts": "how free is it of distortions, blurred faces, wrong limbs, watermarks and parts that do "
    "not fit together",
}


def gedit_questions(case: Case, original: Picture, edited: Picture) -> list[JudgeQuestion]:
    """Two questions, two scores from 0 to 10 each; the second shows the edited picture alone.

    As in the published script the edited picture is brought to the size of the original first.
    """
    edited = edited.convert("RGB").resize(original.size)
    semantic = f"{BOTH} They may be the same, when the edit failed. {_asked(case)}\n{TEN_STEPS}"
    return [
        judge_question(JUDGE, semantic, (original, edited), GEDIT_SEMANTIC, ZERO_TO_TEN),
        judge_question(
            JUDGE, f"The picture was made by a machine.\n{TEN_STEPS}", (edited,), GEDIT_QUALITY, ZERO_TO_TEN
        ),
    ]


RISE_CONSISTENCY = {
    "consistency": "is everything that the request does not change the same: persons, things, places, colours, style, "
    "background"
}
RISE_REASONING = {"reasoning": "how far does the edited picture show the true result, in kind and in degree"}
RISE_PLAUSIBILITY = {
    "plausibility": "how sharp, sound and real does the picture look, and could what it shows be so in the "
    "physical world"
}
RISE_LOGICAL = {
    "reasoning": "1 when the edited picture gives the right solution and no other, else 0",
    "consistency": "1 when style, colours, layout and background are as before but for the solution, else 0",
}


def rise_questions(case: Case, original: Picture, edited: Picture) -> list[JudgeQuestion]:
    """Three scores from 1 to 5; for logical puzzles two of 0 or 1, which become 1 or 5 as in the published script.

    Consistency is not asked where the benchmark leaves it free.
    """
    if case.category == "logical_reasoning":
        return [_rise_logical(case, original, edited)]
    kept = f"{BOTH} {_asked(case)}\nDo not count what this asks to change.\n{FIVE_STEPS}"
    consistency = judge_question(JUDGE, kept, (original, edited), RISE_CONSISTENCY, ONE_TO_FIVE)
    sound = f"The picture was made by a machine.\n{FIVE_STEPS}"
    plausibility = judge_question(JUDGE, sound, (edited,), RISE_PLAUSIBILITY, ONE_TO_FIVE)
    free = case.details["consistency_free"]
    return [*([] if free else [consistency]), _rise_reasoning(case, original, edited), plausibility]


def _rise_reasoning(case: Case, original: Picture, edited: Picture) -> JudgeQuestion:
    pictures: tuple[Picture, ...] = (edited,)
    shown = "The picture is the edited one."
    if case.reference is not None:
        pictures, shown = (
            (load_image(case.reference.read()), edited),
            "The first picture is the true result, the second the edited one.",
        )
    elif case.details["sees_input"]:
        pictures, shown = (original, edited), BOTH
    text = f"{shown} {_asked(case)}{_truth(case)}\n{FIVE_STEPS}"
    return judge_question(JUDGE, text, pictures, RISE_REASONING, ONE_TO_FIVE)


def _rise_logical(case: Case, original: Picture, edited: Picture) -> JudgeQuestion:
    pictures, shown = (original, edited), BOTH
    if case.reference is not None:
        pictures = (original, load_image(case.reference.read()), edited)  # type: ignore[assignment]
        shown = "The first picture is the puzzle, the second its true solution, the third the edited one."
    text = f"{shown} {_asked(case)}{_truth(case)}"
    asked = judge_question(JUDGE, text, pictures, RISE_LOGICAL, NO_OR_YES)
    return JudgeQuestion(question=asked.question, parse=_to_five(asked.parse))


def _to_five(parse: Callable[[str], dict[str, float]]) -> Callable[[str], dict[str, float]]:
    """Scores from 0 to 1 as scores from 1 to 5."""
    return lambda text: {name: 4 * score + 1 for name, score in parse(text).items()}


def _truth(case: Case) -> str:
    words = case.details["reference"]
    return f"\nThe true result: «{words}»" if words else ""


KRIS_CONSISTENCY = {"consistency": "is everything that the request does not change the same as before"}
KRIS_QUALITY = {"quality": "how sharp, natural and free of traces, broken shapes and noise is it"}
KRIS_INSTRUCTION = {"instruction": "how fully and exactly is what was asked for done"}
KRIS_KNOWLEDGE = {"knowledge": "how far is what is shown right by what is known of the world, and by the explanation"}
KRIS_KNOWING = {*KRIS_TYPES["social_science"], *KRIS_TYPES["natural_science"], *KRIS_TYPES["logical_reasoning"]}
"""Categories in which knowledge is judged too."""
KRIS_EXPLAINED = {*KRIS_KNOWING, "anomaly_correction"}


def kris_questions(case: Case, original: Picture, edited: Picture) -> list[JudgeQuestion]:
    """Consistency, instruction (with knowledge where the category needs it) and quality, from 1 to 5."""
    shown, pictures = _kris_pictures(case, original, edited)
    kept = f"{shown} {_asked(case)}\nDo not count what this asks to change.\n{FIVE_STEPS}"
    sound = f"The picture was made by a machine.\n{FIVE_STEPS}"
    return [
        judge_question(JUDGE, kept, pictures, KRIS_CONSISTENCY, ONE_TO_FIVE),
        _kris_instruction(case, shown, pictures),
        judge_question(JUDGE, sound, (edited,), KRIS_QUALITY, ONE_TO_FIVE),
    ]


def _kris_instruction(case: Case, shown: str, pictures: Sequence[Picture]) -> JudgeQuestion:
    criteria: Criteria = KRIS_INSTRUCTION
    if case.category in KRIS_KNOWING:
        criteria = {**KRIS_INSTRUCTION, **KRIS_KNOWLEDGE}
    explanation = case.details["explanation"] if case.category in KRIS_EXPLAINED else ""
    told = f"\nThe explanation: «{explanation}»" if explanation else ""
    if case.category == "viewpoint_change" and case.reference is not None:
        pictures = (*pictures, load_image(case.reference.read()))
        shown += " The last picture is the true result."
    return judge_question(JUDGE, f"{shown} {_asked(case)}{told}\n{FIVE_STEPS}", pictures, criteria, ONE_TO_FIVE)


def _kris_pictures(case: Case, original: Picture, edited: Picture) -> tuple[str, tuple[Picture, ...]]:
    """What the pictures are, and the pictures: the given ones and the edited one, frames in their order."""
    given = case.details["pictures"]
    if len(given) == 1:
        return BOTH, (original, edited)
    pictures = [load_image(blob.read()) for blob in given]
    if case.category != "temporal_prediction":
        shown = f"The first {len(given)} pictures are given, the last is the edited one, made from them."
        return shown, (*pictures, edited)
    frames = sorted(
        zip((*case.details["frames"], case.details["frame"]), (*pictures, edited), strict=True),
        key=lambda each: each[0],
    )
    shown = (
        f"The pictures are frames 1 to {len(frames)} of a sequence; frame {case.details['frame']} is the edited one."
    )
    return shown, tuple(picture for _, picture in frames)
