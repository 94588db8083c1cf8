"""What is installed against what is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.startup import versions as app_versions
from app.startup.versions import check_versions, installed_version, versions_line
from core.errors import HaploOmniError
from tests.app.startup.helpers import one_sentence, write_requirements

ROOT = Path(__file__).resolve().parents[3]


def next_version(name: str) -> str:
    return f"{int(installed_version(name).split('.')[0]) + 1}.0"


def test_right_versions_with_all_that_a_requirements_file_may_hold(tmp_path):
    folder = write_requirements(
        tmp_path,
        f"# ranges\n\n-r other.txt\n--index-url x\npytest>=1,<{next_version('pytest')}  # tests\n"
        "nosuch-package>=1; sys_platform == 'nowhere'\nhttpx[socks]>=0.1 ; python_version >= '3'\n"
        "numpy>=1 \\\n    --hash=sha256:00\n",
        f"pytest=={installed_version('pytest')}\nhttpx==0.0.1\n",
    )
    assert check_versions(folder) == [f"httpx {installed_version('httpx')} is installed; tested with 0.0.1"]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ("nosuch-package>=1", "nosuch-package is missing"),
        ("pytest>={next}", "pytest {now} is too old (>={next} is needed)"),
        ("pytest=={next}", "is too old"),
        ("pytest~={next}", "is too old"),
        ("pytest=={next}.*", "is too old"),
        ("pytest>=1,<2", "pytest {now} is too new (>=1,<2 is needed)"),
        ("pytest==1.0", "is too new"),
    ],
)
def test_a_wrong_package_is_told_with_the_command_that_mends_it(tmp_path, ranges, expected):
    words = {"next": next_version("pytest"), "now": installed_version("pytest")}
    with pytest.raises(HaploOmniError) as caught:
        check_versions(write_requirements(tmp_path, ranges.format(**words)))
    said = str(caught.value)
    assert expected.format(**words) in said
    assert "run: " in said and one_sentence(said)


def test_many_wrong_packages_are_one_sentence(tmp_path):
    lines = "\n".join(f"nosuch-package-{number}>=1" for number in range(9))
    with pytest.raises(HaploOmniError, match=r"nosuch-package-0 is missing.*7 other packages"):
        check_versions(write_requirements(tmp_path, lines))


def test_a_missing_packaging_is_told(tmp_path, monkeypatch):
    real = app_versions.importlib.util.find_spec
    monkeypatch.setattr(
        app_versions.importlib.util, "find_spec", lambda name: None if name == "packaging" else real(name)
    )
    with pytest.raises(HaploOmniError, match=r"packaging is not installed.*run: "):
        check_versions(write_requirements(tmp_path, "pytest>=1"))


def test_any_build_of_opencv_will_do(tmp_path, monkeypatch):
    def version(name):
        if name == "opencv-python-headless":
            return "5.0.0"
        raise app_versions.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(app_versions.metadata, "version", version)
    assert check_versions(write_requirements(tmp_path, "opencv-python>=5,<6")) == []


def test_a_package_whose_installation_was_interrupted_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(app_versions.metadata, "version", lambda _name: None)
    with pytest.raises(HaploOmniError, match="pytest is missing"):
        check_versions(write_requirements(tmp_path, "pytest>=1"))


def test_an_untested_version_is_a_warning_where_it_was_asked_for(tmp_path):
    folder = write_requirements(tmp_path, "pytest>=1,<2\n")
    assert check_versions(folder, untested=True) == [
        f"pytest {installed_version('pytest')} is too new (>=1,<2 is needed)"
    ]
    with pytest.raises(HaploOmniError, match="nosuch-package is missing"):
        check_versions(write_requirements(tmp_path, "nosuch-package>=1\n"), untested=True)


def test_this_repositorys_requirements_are_met_here():
    untested = bool(os.environ.get("HAPLO_UNTESTED"))  # set by `make newest`
    assert all(one_sentence(warning) for warning in check_versions(ROOT, untested))


def test_the_versions_of_an_error_report():
    line = versions_line()
    assert "Python " in line
    assert all(
        f"{name} {installed_version(name)}" in line
        for name in ("torch", "transformers", "diffusers", "gradio")
    )
