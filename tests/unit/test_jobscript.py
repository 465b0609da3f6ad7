"""Job scripts: whatever a value holds, it is an argument and nothing else. Proven with a real bash."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.catalog import LaunchChoices, load_apps
from launcher.joblog import ExitCode
from launcher.jobscript import (
    FUNCTIONS_NAME,
    SECRET_NAME,
    SERVER_CONFIG_NAME,
    SETTINGS_NAME,
    JobScriptError,
    ScriptContext,
    render,
    session_files,
)
from launcher.scripttemplate import render_template, template_mistakes

ROOT = Path(__file__).parents[2]
APPS = load_apps([ROOT / "apps"])
SECRET = "s3cret-" + "x" * 36
CHOICES = LaunchChoices(cores=2, memory_mib=4096, walltime_seconds=3600, queue="workq")
CONTEXT = ScriptContext(
    session_id="abcdefghjkmn",
    session_folder="/home/alice/.footbridge/sessions/abcdefghjkmn",
    base_url="/s/abcdefghjkmn/",
    listen_address="",
    choices=CHOICES,
    idle_stop_seconds=7200,
    portal_name="Footbridge",
)
HOSTILE = [
    "$(touch /tmp/owned)",
    "`id`",
    "'; id; '",
    '" && id && "',
    "a b",
    "*",
    "~",
    "-rf",
    "\\",
    "$HOME",
    "!!",
    "#PBS -q fast",
    "{{ 7 * 7 }}",
    "研究 🎉",
    "a;b|c&d<e>f(g)h",
]
TEXTS = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_categories=["Cs"], min_codepoint=0x20, exclude_characters="\x7f"), min_size=1, max_size=40
)

# Takes the place of functions.sh: prints each argument of each function, so that a test sees what arrived.
RECORDER = r"""
record() { printf '%s\0' "$#" "$@"; }
begin() { :; }
step() { :; }
load_modules() { record "$@"; }
use_environment() { record "$@"; }
enter_folder() { record "$@"; }
find_container_runtime() { :; }
run_jupyter() { record "$@"; }
run_jupyter_in_container() { record "$@"; }
"""


def with_choices(**changes: object) -> ScriptContext:
    """The context of these tests with other choices."""
    return dataclasses.replace(CONTEXT, choices=dataclasses.replace(CHOICES, **changes))  # type: ignore[arg-type]  # the fields of LaunchChoices, by name


def arguments(app_id: str, folder: Path, context: ScriptContext) -> list[list[str]]:
    """What the functions of a rendered script are called with, when a real bash runs it in ``folder``."""
    (folder / FUNCTIONS_NAME).write_text(RECORDER, encoding="utf-8")
    script = render(APPS[app_id], dataclasses.replace(context, session_folder=str(folder)))
    done = subprocess.run(
        ["bash"], input=script, capture_output=True, check=False, cwd=folder, env={"PATH": "/usr/bin:/bin"}, timeout=60
    )
    assert done.stderr == b""
    assert done.returncode == 0
    words = done.stdout.decode().split("\0")[:-1]
    calls = []
    while words:
        count = int(words[0])
        calls.append(words[1 : 1 + count])
        words = words[1 + count :]
    return calls


def refusal(context: ScriptContext, app_id: str = "jupyter") -> str:
    """Why a script is not rendered."""
    with pytest.raises(JobScriptError) as caught:
        render(APPS[app_id], context)
    return caught.value.detail


# ---- the script -----------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(environment=TEXTS, folder=TEXTS)
def test_values_of_the_jupyter_app_arrive_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, environment: str, folder: str
) -> None:
    path = tmp_path_factory.mktemp("session")
    context = with_choices(environment_kind="module", environment_value=environment, folder=folder)
    assert arguments("jupyter", path, context) == [
        [],
        ["module", environment],
        [folder],
        ["jupyter-lab", "jupyter-notebook"],
    ]
    assert [entry.name for entry in path.iterdir()] == [FUNCTIONS_NAME]


@settings(max_examples=40)
@given(image=TEXTS, folder=TEXTS, gpus=st.integers(0, 8))
def test_values_of_the_container_app_arrive_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, image: str, folder: str, gpus: int
) -> None:
    path = tmp_path_factory.mktemp("session")
    assert arguments("jupyter-container", path, with_choices(image=image, folder=folder, gpus=gpus)) == [
        [],
        [folder],
        [image, str(gpus), "jupyter-lab", "jupyter-notebook"],
    ]


@given(st.sampled_from(["environment_value", "folder"]), TEXTS)
def test_no_value_adds_a_line_or_a_directive(field: str, value: str) -> None:
    script = render(APPS["jupyter"], with_choices(**{field: value})).decode()
    plain = render(APPS["jupyter"], CONTEXT).decode()
    assert script.count("\n") == plain.count("\n")
    assert not re.search(r"^\s*#\s*(PBS|SBATCH)", script, re.MULTILINE)


@pytest.mark.parametrize("folder", ["a b", "it's", "$(id)", "研究"])
def test_a_session_folder_with_odd_characters_is_found(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    assert arguments("jupyter", tmp_path / folder, CONTEXT)[1] == ["default", ""]


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\x00", "\x1b[0m", "\x7f", "\ud800"])
def test_control_characters_are_refused(value: str) -> None:
    assert value not in refusal(with_choices(folder=value))


def test_a_relative_session_folder_is_refused() -> None:
    assert "absolute" in refusal(dataclasses.replace(CONTEXT, session_folder="sessions/x"))


@pytest.mark.parametrize("base_url", ["", "s/x/", "/s/x"])
def test_a_base_url_without_slashes_is_refused(base_url: str) -> None:
    assert "slash" in refusal(dataclasses.replace(CONTEXT, base_url=base_url))


def test_modules_of_the_app_are_loaded_first(tmp_path: Path) -> None:
    app = APPS["jupyter"].model_copy(update={"modules": ("gcc/12", "cuda")})
    (tmp_path / FUNCTIONS_NAME).write_text(RECORDER, encoding="utf-8")
    script = render(app, dataclasses.replace(CONTEXT, session_folder=str(tmp_path)))
    done = subprocess.run(["bash"], input=script, capture_output=True, check=True, timeout=60)
    assert done.stdout.startswith(b"2\0gcc/12\0cuda\0")


# ---- templates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('echo "{{ folder }}"', "line 2: a value must be assigned"),
        ("echo {{ folder }}", "line 2: a value must be assigned"),
        ("x={{ folder }} y", "line 2: a value must be assigned"),
        ("x={{ a }}{{ b }}", "line 2: a value must be assigned"),
        ("x=({{ a }} {{ b }})", "line 2: a value must be assigned"),
        ("# {{ folder }}", "line 2: a value must be assigned"),
        ("echo {% if x %}y{% endif %}", "line 2: a statement"),
        ("#PBS -q fast", "line 2: scheduler directives"),
        ("  # sbatch --x", "line 2: scheduler directives"),
        ("x={{ folder", "line"),
        ("{% if x %}", "line"),
        ("{% nonsense %}", "line"),
    ],
)
def test_a_template_that_breaks_a_rule_is_named_with_its_line(body: str, said: str) -> None:
    assert any(mistake.startswith(said) for mistake in template_mistakes(f"#!/bin/bash\n{body}\n"))


def test_a_template_begins_with_bash() -> None:
    assert template_mistakes("#!/bin/sh\n") == ["line 1: must be #!/bin/bash"]


def test_conditions_and_lists_are_possible() -> None:
    text = "#!/bin/bash\n{% if gpus > 0 %}\nn={{ gpus }}\n{% endif %}\nall=({{ names }})\necho ${#all[@]}\n"
    assert render_template(text, {"gpus": 1, "names": ("a b", "c")}) == (
        "#!/bin/bash\nn=1\nall=('a b' c)\necho ${#all[@]}\n"
    )


@pytest.mark.parametrize("value", [None, True, 1.5, {"a": 1}, b"x"])
def test_only_texts_and_whole_numbers_have_a_place_in_a_script(value: object) -> None:
    with pytest.raises(JobScriptError):
        render_template("#!/bin/bash\nx={{ value }}\n", {"value": value})


@pytest.mark.parametrize("expression", ["missing", "folder.__class__.__mro__", "folder.format(1)", "1 / 0", "folder()"])
def test_an_expression_that_fails_is_an_error_in_words(expression: str) -> None:
    with pytest.raises(JobScriptError):
        render_template(f"#!/bin/bash\nx={{{{ {expression} }}}}\n", {"folder": "{0.__class__}\n"})


# ---- files ----------------------------------------------------------------------------------------------------------


def test_the_secret_is_in_its_own_file_and_nowhere_else() -> None:
    files = {file.relative_path: file.data for file in session_files(CONTEXT, SECRET)}
    assert files.pop(SECRET_NAME) == SECRET.encode()
    assert not any(SECRET.encode() in data for data in [*files.values(), render(APPS["jupyter"], CONTEXT)])


def test_no_file_is_readable_by_others() -> None:
    assert {file.mode for file in session_files(CONTEXT, SECRET)} == {0o600}


def test_settings_are_json() -> None:
    context = dataclasses.replace(CONTEXT, portal_name='The "best" \\ 研究')
    data = next(file.data for file in session_files(context, SECRET) if file.relative_path == SETTINGS_NAME)
    read = json.loads(data)
    assert (read["portal_name"], read["session"], read["base_url"]) == (
        'The "best" \\ 研究',
        "abcdefghjkmn",
        "/s/abcdefghjkmn/",
    )


@pytest.mark.parametrize("secret", ["", "short", "x" * 40 + "\n", "ü" * 40])
def test_a_poor_secret_is_refused(secret: str) -> None:
    with pytest.raises(JobScriptError, match="secret"):
        session_files(CONTEXT, secret)


def server_config() -> str:
    """The configuration that travels with the job."""
    files = session_files(CONTEXT, SECRET)
    return next(file.data for file in files if file.relative_path == SERVER_CONFIG_NAME).decode()


def test_the_server_configuration_keeps_to_the_syntax_of_python_3_5() -> None:
    tree = ast.parse(server_config(), feature_version=(3, 5))
    too_new = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Match, ast.AsyncFunctionDef)
    assert not [node for node in ast.walk(tree) if isinstance(node, too_new)]
    too_new_names = {"UTC", "removeprefix", "removesuffix", "cached_property", "fromisoformat", "run"}
    assert not {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & too_new_names


def test_exit_codes_in_shell_and_configuration_are_those_that_are_documented() -> None:
    functions = (ROOT / "launcher/jobfiles/functions.sh").read_text(encoding="utf-8")
    used = {(int(number), word) for number, word in re.findall(r"fail (\d+) ([a-z_]+)", functions)}
    used |= {
        (int(number), name.lower()) for name, number in re.findall(r"EXIT_([A-Z_]+) = (\d+)", server_config_names())
    }
    assert used == {(code.value, code.word) for code in ExitCode}


def server_config_names() -> str:
    """The configuration with the names of its exit codes as ``ExitCode`` has them."""
    return server_config().replace("EXIT_TOO_OLD", "EXIT_JUPYTER_TOO_OLD")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("app_id", sorted(APPS))
def test_shellcheck_finds_nothing(tmp_path: Path, app_id: str) -> None:
    script = tmp_path / "script.sh"
    script.write_bytes(render(APPS[app_id], CONTEXT))
    functions = ROOT / "launcher/jobfiles/functions.sh"
    done = subprocess.run(["shellcheck", script, functions], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""


@pytest.mark.parametrize("app_id", sorted(APPS))
def test_bash_accepts_the_script(app_id: str) -> None:
    script = render(APPS[app_id], CONTEXT)
    assert subprocess.run(["bash", "-n"], input=script, check=False, timeout=60).returncode == 0
