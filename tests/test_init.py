from __future__ import annotations

import subprocess
import sys

import pytest

import chronoedit


def test_import_is_light_and_names_are_lazy() -> None:
    code = (
        "import sys, chronoedit\n"
        "heavy = {'torch', 'numpy', 'PIL', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "chronoedit.EditRequest\n"
        "assert 'torch' not in sys.modules\n"
        "assert set(chronoedit.__all__) <= set(dir(chronoedit))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    from chronoedit.editing.editor import Editor
    from chronoedit.editing.loading import load
    from chronoedit.request import EditRequest, EditResult

    assert (chronoedit.Editor, chronoedit.load) == (Editor, load)
    assert (chronoedit.EditRequest, chronoedit.EditResult) == (EditRequest, EditResult)
    assert chronoedit.__version__.count(".") == 2


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(AttributeError, match="no attribute 'edit'; it has EditRequest, EditResult, Editor"):
        _ = chronoedit.edit
