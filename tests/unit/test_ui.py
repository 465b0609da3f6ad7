"""The tags of the templates: durations, moments, icons and form fields."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import pytest
from django import forms
from django.template import Context, Template
from django.utils import timezone, translation

from launcher.templatetags import ui

AT = dt.datetime(2026, 11, 23, 4, 5, 6, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0, "0 s"),
        (3.24, "3.2 s"),
        (4.0, "4 s"),
        (42.7, "43 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (6120.5, "1 h 42 min"),
    ],
)
def test_a_duration_is_written_in_the_two_units_that_matter(seconds: float | None, words: str) -> None:
    with translation.override("en"):
        assert ui.duration(seconds) == words


def test_a_moment_without_a_chosen_zone_is_utc_and_says_so() -> None:
    assert "04:05:06 UTC</time>" in ui.moment(AT, "precise")


def test_a_moment_is_in_the_zone_that_the_reader_chose() -> None:
    with timezone.override(zoneinfo.ZoneInfo("Asia/Shanghai")):
        assert ">12:05:06</time>" in ui.moment(AT, "precise")


def test_a_moment_keeps_the_exact_time_for_machines() -> None:
    assert 'datetime="2026-11-23T04:05:06+00:00"' in ui.moment(AT)


def test_no_moment_is_nothing() -> None:
    assert ui.moment(None) == ""


def test_trouble_shows_in_the_icon_before_the_state_does() -> None:
    assert "exclamation-triangle-fill" in ui.state_icon("ready", "warn")
    assert "check-circle-fill" in ui.state_icon("ready", "good")


def test_an_icon_is_hidden_from_screen_readers() -> None:
    assert 'aria-hidden="true"' in ui.icon("cpu")


class Example(forms.Form):
    environment = forms.ChoiceField(choices=[("default", "Default"), ("path", "Path")], help_text="Choose one.")
    environment_path = forms.CharField(required=False)
    cores = forms.IntegerField(min_value=1, max_value=8)
    title = forms.CharField(required=False)
    folder = forms.CharField(required=False)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields["folder"].advanced = True


def shown(form: forms.Form, name: str) -> str:
    return Template("{% load ui %}{% field bound %}").render(Context({"bound": form[name]}))


def test_a_field_names_its_help_and_its_error_for_screen_readers() -> None:
    html = shown(Example({"environment": "nonsense"}), "environment")
    described = html.split('aria-describedby="')[1].split('"')[0].split()
    assert set(described) == {"id_environment_helptext", "id_environment_error"}
    assert all(f'id="{name}"' in html for name in described)
    assert 'aria-invalid="true"' in html
    assert "is-invalid" in html


def test_a_path_is_asked_for_only_when_the_choice_says_so() -> None:
    assert 'data-shown-when="environment"' in shown(Example(), "environment_path")
    assert "data-shown-when" not in shown(Example(), "title")


def test_fields_are_grouped_and_the_advanced_ones_come_last() -> None:
    groups = ui.field_groups(Example())
    assert [(group.key, [bound.name for bound in group.fields]) for group in groups] == [
        ("environment", ["environment", "environment_path"]),
        ("resources", ["cores"]),
        ("session", ["title"]),
        ("advanced", ["folder"]),
    ]


def test_a_group_knows_that_something_in_it_is_wrong() -> None:
    groups = {group.key: group for group in ui.field_groups(Example({"environment": "default"}))}
    assert groups["resources"].has_errors
    assert not groups["environment"].has_errors


def test_a_number_says_its_limits_where_screen_readers_find_them() -> None:
    html = shown(Example(), "cores")
    assert 'aria-describedby="id_cores_helptext"' in html
    assert 'id="id_cores_helptext">From 1 to 8.</div>' in html


def test_a_number_that_may_be_a_fraction_of_one_says_only_the_most() -> None:
    class Short(forms.Form):
        hours = forms.FloatField(min_value=0.05, max_value=8)

    assert 'id="id_hours_helptext">At most 8' in shown(Short(), "hours")


def test_a_table_has_a_name_in_the_readers_language_and_a_head_with_a_column_for_screen_readers() -> None:
    text = (
        '{% load ui %}{% grid _("Queues") cluster margin="mt-3" %}'
        '{% columns _("State") _("App") hidden=_("Actions") %}<tbody></tbody>{% endgrid %}'
    )
    with translation.override("zh-hans"):
        assert Template(text).render(Context({"cluster": 'a "<b>"'})) == (
            '<div class="table-frame mt-3" tabindex="0" role="region" aria-label="队列, a &quot;&lt;b&gt;&quot;">'
            '<table class="grid"><thead><tr><th scope="col">状态</th><th scope="col">应用</th>'
            '<th scope="col"><span class="visually-hidden">操作</span></th></tr></thead><tbody></tbody></table></div>'
        )


def test_a_table_needs_no_hidden_column() -> None:
    assert ui.columns("One", "Two") == ('<thead><tr><th scope="col">One</th><th scope="col">Two</th></tr></thead>')
