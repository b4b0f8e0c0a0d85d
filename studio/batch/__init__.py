"""Many files of any task: names, journal, going on after bad files, resuming, and the report.

`run` does a task for each of many inputs, `restore_files` is the task that most come for.
"""

from studio.batch.inputs import without_results
from studio.batch.names import NAME, PASSED_ON, check_name, plan_outputs
from studio.batch.page import write_page
from studio.batch.reports import FAILED, NO_FACE, RESTORED, UNCHANGED, FileReport, read_report, write_report
from studio.batch.restoring import NONE_FOUND, cut, restore_file, restore_files, seeded, weights_of, with_credentials
from studio.batch.run import RESULT, Task, run
from studio.batch.watching import watch

__all__ = [
    "FAILED",
    "NAME",
    "NONE_FOUND",
    "NO_FACE",
    "PASSED_ON",
    "RESTORED",
    "RESULT",
    "UNCHANGED",
    "FileReport",
    "Task",
    "check_name",
    "cut",
    "plan_outputs",
    "read_report",
    "restore_file",
    "restore_files",
    "run",
    "seeded",
    "watch",
    "weights_of",
    "with_credentials",
    "without_results",
    "write_page",
    "write_report",
]
