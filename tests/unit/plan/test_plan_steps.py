"""What the steps of a stage hold: variables, config, history, command lines, mounts, destinations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from plan_images import images, planned

if TYPE_CHECKING:
    from castoff.plan.stage import Stage

from castoff.errors import CastoffError, ExpansionError, ParseError, PlanError
from castoff.oci.config import ContainerConfig, Healthcheck
from castoff.plan.step import (
    DEFAULT_PATH,
    CacheMount,
    ConfigStep,
    CopyStep,
    InlineFile,
    RunStep,
    SecretMount,
    SshMount,
    TmpfsMount,
    WorkdirStep,
)


def target(text: str, **request: Any) -> Stage:
    return planned(text, **request).target


def history(text: str, **request: Any) -> list[str]:
    return [step.created_by for step in target(text, **request).steps]


def last_run(text: str, **request: Any) -> RunStep:
    payload = target(text, **request).steps[-1].payload
    assert isinstance(payload, RunStep)
    return payload


def last_copy(text: str) -> CopyStep:
    payload = target(text).steps[-1].payload
    assert isinstance(payload, CopyStep)
    return payload


def test_scratch_has_a_path_and_a_working_directory() -> None:
    assert target("FROM scratch").config == ContainerConfig(env=(f"PATH={DEFAULT_PATH}",), working_dir="/")


def test_a_base_without_a_path_gets_one_and_keeps_the_rest() -> None:
    config = target("FROM bare").config
    assert (config.env, config.working_dir) == ((f"PATH={DEFAULT_PATH}",), "")
    assert target("FROM base").config.env == ("PATH=/bin", "LEVEL=base")
    assert target("FROM base").author == "base author"


def test_env_values_see_the_environment_before_their_line() -> None:
    stage = target("FROM bare\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n")
    assert stage.config.env[1:] == ("abc=bye", "def=hello", "ghi=bye")


def test_arguments_and_their_precedence() -> None:
    text = "ARG G=global\nARG H\nFROM bare\nARG G\nARG H=default\nARG D=$G-x\nARG NONE\nENV E=$D\nRUN x\n"
    run = last_run(text, build_args=(("H", "given"), ("NO", "1"), ("http_proxy", "p")))
    assert run.env[1:] == ("G=global", "H=given", "D=global-x", "E=global-x")
    assert run.proxy_env == ("HTTP_PROXY=p", "http_proxy=p")
    assert history(text, build_args=(("H", "given"),))[-1] == (
        "RUN |4 G=global H=given D=global-x NONE= /bin/sh -c x # buildkit"
    )


def test_arguments_are_inherited_by_stages_and_not_by_images() -> None:
    text = "FROM bare AS a\nARG X=1\nFROM a\nRUN x\n"
    assert "X=1" in last_run(text).env
    assert not any(item.startswith("X=") for item in target(text).config.env)


def test_a_later_argument_covers_a_variable_for_the_steps_only() -> None:
    stage = target("FROM bare\nENV X=env\nARG X=arg\nRUN x\n")
    run = stage.steps[-1].payload
    assert isinstance(run, RunStep)
    assert "X=arg" in run.env
    assert "X=env" in stage.config.env


def test_the_epoch_is_an_argument_where_it_is_asked_for() -> None:
    assert "SOURCE_DATE_EPOCH=7" in last_run("FROM bare\nARG SOURCE_DATE_EPOCH\nRUN x", epoch=7).env
    assert not any("EPOCH" in item for item in last_run("FROM bare\nRUN x", epoch=7).env)


def test_the_default_target_stage_has_a_name() -> None:
    assert "TARGETSTAGE=default" in last_run("FROM bare\nARG TARGETSTAGE\nRUN x").env


def test_build_arguments_that_nothing_takes_are_a_warning() -> None:
    given = (("A", "1"), ("B", "2"), ("HTTPS_PROXY", "p"), ("TARGETOS", "linux"), ("BUILDKIT_X", "1"))
    warnings = planned("FROM bare\nARG A\n", build_args=given, epoch=1).warnings
    assert [warning.message for warning in warnings] == ["[Warning] One or more build-args [B] were not consumed"]


def test_history_of_config_instructions() -> None:
    assert history(
        "FROM base\n"
        'ENV A=b C="d e"\nLABEL x=$A\nUSER $A\nEXPOSE 80-81/UDP 9000\nVOLUME /v $A\nSTOPSIGNAL SIGTERM\n'
        'SHELL ["/bin/bash", "-c"]\nCMD run it\nENTRYPOINT ["a", "b\\""]\nMAINTAINER me\nARG Z\n'
        "HEALTHCHECK --interval=90s CMD x\nHEALTHCHECK NONE\n"
    ) == [
        "ENV A=b C=d e",
        "LABEL x=b",
        "USER b",
        "EXPOSE [80/udp 81/udp 9000/tcp]",
        "VOLUME [/v b]",
        "STOPSIGNAL SIGTERM",
        "SHELL [/bin/bash -c]",
        'CMD ["/bin/bash" "-c" "run it"]',
        'ENTRYPOINT ["a" "b\\""]',
        "MAINTAINER me",
        "ARG Z",
        "HEALTHCHECK {Test:[CMD-SHELL x] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
    ]


def test_config_after_all_instructions() -> None:
    stage = target(
        'FROM base\nEXPOSE 80\nVOLUME ["/b", "/a"]\nSTOPSIGNAL 9\nHEALTHCHECK NONE\nLABEL a=1\n'
        "MAINTAINER me\nONBUILD RUN x",
        labels=(("a", "2"), ("z", "3")),
    )
    assert stage.config.exposed_ports == ("80/tcp",)
    assert stage.config.volumes == ("/a", "/b")
    assert stage.config.stop_signal == "9"
    assert stage.config.healthcheck == Healthcheck(("NONE",))
    assert stage.config.labels == (("a", "2"), ("origin", "base"), ("z", "3"))
    assert stage.config.on_build == ("RUN x",)
    assert stage.author == "me"


@pytest.mark.parametrize(
    ("text", "entrypoint", "cmd"),
    [
        ("FROM base", ("entry",), ("from-base",)),
        ('FROM base\nENTRYPOINT ["x"]', ("x",), None),
        ('FROM base\nCMD ["c"]\nENTRYPOINT ["x"]', ("x",), ("c",)),
        ('FROM base\nENTRYPOINT ["x"]\nCMD c', ("x",), ("/bin/sh", "-c", "c")),
        ("FROM base\nENTRYPOINT []", None, None),
        ("FROM base\nCMD []", ("entry",), None),
        ('FROM base AS a\nCMD ["c"]\nFROM a\nENTRYPOINT ["x"]', ("x",), None),
    ],
)
def test_an_entry_point_resets_the_command_of_the_base(
    text: str, entrypoint: tuple[str, ...] | None, cmd: tuple[str, ...] | None
) -> None:
    config = target(text).config
    assert (config.entrypoint, config.cmd) == (entrypoint, cmd)


def test_workdir_is_joined_and_made_by_the_user_of_the_moment() -> None:
    stage = target("FROM base\nWORKDIR a\nENV D=/d\nUSER bob\nWORKDIR ${D}/e/../f\nWORKDIR ../g\nRUN x")
    folders = [step.payload for step in stage.steps if isinstance(step.payload, WorkdirStep)]
    assert folders == [WorkdirStep("/srv/a", "1000:1000"), WorkdirStep("/d/f", "bob"), WorkdirStep("/d/g", "bob")]
    run = stage.steps[-1].payload
    assert isinstance(run, RunStep)
    assert (run.workdir, run.user) == ("/d/g", "bob")
    assert stage.config.working_dir == "/d/g"


def test_workdir_root_makes_no_layer() -> None:
    step = target("FROM base\nWORKDIR /").steps[0]
    assert step.payload == ConfigStep("WORKDIR /")
    assert step.empty_layer


@pytest.mark.parametrize(
    ("line", "argv", "scripts"),
    [
        ("RUN a  b", ("/bin/sh", "-c", "a  b"), ()),
        ('RUN ["a", "$B"]', ("a", "$B"), ()),
        ("RUN <<E\nx\ny\nE", ("/bin/sh", "-c", "x\ny\n"), ()),
        ("RUN <<-E\n\tx\nE", ("/bin/sh", "-c", "x\n"), ()),
        (
            "RUN <<E\n#!/usr/bin/env x\ny\nE",
            ("/bin/sh", "-c", "/dev/pipes/E"),
            (InlineFile("E", b"#!/usr/bin/env x\ny\n", 0o755),),
        ),
        ("RUN cat <<A <<B\n1\nA\n2\nB", ("/bin/sh", "-c", "cat <<A <<B\n1\nA\n2\nB"), ()),
        ('SHELL ["bash"]\nRUN a', ("bash", "a"), ()),
    ],
)
def test_command_lines(line: str, argv: tuple[str, ...], scripts: tuple[InlineFile, ...]) -> None:
    run = last_run(f"FROM bare\n{line}")
    assert (run.argv, run.scripts) == (argv, scripts)


def test_the_name_of_a_script_step_shows_its_first_line() -> None:
    assert target("FROM bare\nRUN <<E\nfirst\nsecond\nE").steps[0].name == "[2/2] RUN <<E (first...)"


def test_mounts() -> None:
    run = last_run(
        "FROM bare\nARG N=v\nWORKDIR /w\nRUN --mount=type=cache,target=c"
        " --mount=type=cache,id=$N,target=/d,sharing=locked,uid=3"
        " --mount=type=tmpfs,target=/t,size=1k --mount=type=secret,id=a/b --mount=type=secret,target=/s,mode=0440"
        " --mount=type=secret,id=e,env=TOKEN --mount=type=ssh x"
    )
    assert run.mounts == (
        CacheMount("/w/c", "c"),
        CacheMount("/d", "v", "locked", uid=3),
        TmpfsMount("/t", 1024),
        SecretMount("a/b", "/run/secrets/b"),
        SecretMount("s", "/s", mode=0o440),
        SecretMount("e", None, "TOKEN"),
        SshMount(),
    )


def test_a_secret_in_the_environment_is_hidden_in_names() -> None:
    step = target("FROM bare\nRUN --mount=type=secret,id=t,env=TOKEN curl $TOKEN").steps[0]
    assert step.name.endswith("curl ****")


def test_network_of_steps() -> None:
    assert last_run("FROM bare\nRUN x", network="none").network == "none"
    assert last_run("FROM bare\nRUN --network=default x", network="none").network == "none"
    assert last_run("FROM bare\nRUN --network=host x", network="none").network == "host"


@pytest.mark.parametrize(
    ("dest", "expected", "folder"),
    [
        ("/x", "/x", False),
        ("/x/", "/x/", True),
        (".", "/w/", True),
        ("./", "/w/", True),
        ("y", "/w/y", False),
        ("y/", "/w/y/", True),
        ("y/.", "/w/y/.", True),
        ("../y", "/y", False),
        ("$D", "/d", False),
    ],
)
def test_destinations(dest: str, expected: str, folder: bool) -> None:
    copy = last_copy(f"FROM bare\nENV D=/d\nWORKDIR /w\nCOPY a {dest}")
    assert (copy.dest, copy.dest_is_folder) == (expected, folder)


def test_copy_with_everything() -> None:
    stage = target(
        "FROM bare\nARG U=1\nARG F=file\n"
        "COPY --chown=$U:2 --chmod=u=rwX,go=rX --link --parents --exclude=*.$F $F <<E other /d/\nis $F \\$F\nE\n"
    )
    step = stage.steps[-1]
    assert step.payload == CopyStep(
        sources=("file", "other"),
        dest="/d/",
        files=(InlineFile("E", b"is file $F\n"),),
        chown="1:2",
        chmod="u=rwX,go=rX",
        link=True,
        parents=True,
        excludes=("*.$F",),
    )
    assert step.created_by == "COPY --parents --chown=1:2 --chmod=u=rwX,go=rX file other <<E /d/ # buildkit"


def test_add() -> None:
    step = last_copy("FROM bare\nADD --checksum=sha256:00 --unpack=false https://x/y.tar /d/\n")
    assert (step.is_add, step.checksum, step.unpack, step.keep_git_dir) == (True, "sha256:00", False, None)


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("COPY --chmod=999 a b", PlanError, "invalid chmod parameter"),
        ("COPY --chmod=10000 a b", PlanError, "invalid chmod parameter"),
        ("COPY --chmod=rwx a b", PlanError, "invalid chmod parameter"),
        ("COPY https://x/y /z", PlanError, "source can't be a URL for COPY"),
        ("COPY git@x.y:z.git /z", PlanError, "source can't be a git ref for COPY"),
        ("ADD --checksum=sha256:00 a /z", PlanError, "checksum requires"),
        ("ADD --checksum=sha256:00 https://x/y b /z", PlanError, "multiple sources"),
        ("EXPOSE 80/http", PlanError, "invalid proto"),
        ("EXPOSE 90-80", PlanError, "invalid containerPort"),
        ("EXPOSE x:1:2", PlanError, "invalid IP address"),
        ("EXPOSE 70000", PlanError, "invalid containerPort"),
        ("STOPSIGNAL SIGNOPE", PlanError, "invalid signal"),
        ("STOPSIGNAL 0", PlanError, "invalid signal"),
        ("RUN []", PlanError, "has no command"),
        ("RUN --mount=type=cache,target=/ x", PlanError, "invalid mount target"),
        ("RUN --mount=type=cache x", PlanError, "invalid mount target"),
        ("RUN --mount=type=what,target=/x x", ParseError, "unsupported mount type"),
        ("ENV A=${B:?needed}", ExpansionError, "B: needed"),
        ("VOLUME $EMPTY", PlanError, "can not be an empty string"),
    ],
)
def test_what_is_refused_with_its_place(line: str, error: type[CastoffError], message: str) -> None:
    with pytest.raises(error) as caught:
        planned(f"FROM bare\n{line}\n")
    assert message in caught.value.message
    assert caught.value.location
    assert caught.value.location.start_line == 2


def test_a_stage_that_is_not_needed_may_be_wrong() -> None:
    assert planned("FROM bare AS a\nEXPOSE nonsense\nFROM bare\n").target.index == 1


def test_bytes_that_are_not_utf8_survive_in_heredocs() -> None:
    copy = last_copy("FROM bare\nCOPY <<'E' /x\n\udcff\nE\n")
    assert copy.files == (InlineFile("E", b"\xff\n"),)


def test_a_folder_may_be_a_base() -> None:
    resolver = images()
    resolver.contexts["files"] = "local"
    config = planned("FROM files\nRUN x", resolver).target.config
    assert (config.working_dir, config.env) == ("/", (f"PATH={DEFAULT_PATH}",))
