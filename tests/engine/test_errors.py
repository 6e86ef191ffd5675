"""What a user sees of an InputError, in a real interpreter."""

import subprocess
import sys

PRELUDE = "from nerfstudio_ext.engine.errors import InputError, install_excepthook\ninstall_excepthook()\n"


def run(code, before=""):
    command = [sys.executable, "-c", before + PRELUDE + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_input_error_is_one_sentence_and_exit_code_1():
    done = run("install_excepthook()\nraise InputError('There is no clip at x.mp4.')")
    assert done.returncode == 1
    assert done.stderr == "Error: There is no clip at x.mp4.\n" and done.stdout == ""


def test_other_errors_keep_their_traceback():
    done = run("raise KeyError('bug')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "KeyError: 'bug'" in done.stderr


def test_hook_that_was_there_before_is_kept():
    earlier = "import sys\nsys.excepthook = lambda *error: print('mine', error[0].__name__)\n"
    assert run("raise OSError()", before=earlier).stdout == "mine OSError\n"


def test_error_of_a_spawned_process_is_told_the_same_way():
    code = (
        "class ProcessRaisedException(Exception): pass\n"
        "raise ProcessRaisedException('-- Process 1 terminated --\\nTraceback ...\\n"
        "nerfstudio_ext.engine.errors.InputError: There is no clip.\\n')"
    )
    assert run(code).stderr == "Error: There is no clip.\n"
