"""Which stages a target needs, what they are called, and what is refused."""

from __future__ import annotations

import pytest
from plan_images import ARM64, MemoryImages, images, planned

from castoff.errors import CastoffError, PlanError, StageCycleError, StoreError, UnknownStageError
from castoff.plan.stage import ImageBase, ScratchBase, StageBase
from castoff.plan.step import BindMount, ContextSource, CopyStep, ImageSource, RunStep, ScratchSource, StageSource

GO_SERVICE = """
FROM base AS builder
WORKDIR /build
COPY go.mod .
RUN go mod download
COPY main.go .
RUN go build

FROM bare
WORKDIR /app
COPY --from=builder /build/devops-info-service .
EXPOSE 8000
USER nonroot
ENTRYPOINT ["/app/devops-info-service"]
"""


def names(text: str, resolver: MemoryImages | None = None) -> list[str]:
    result = []
    for stage in planned(text, resolver).stages:
        if isinstance(stage.base, ImageBase):
            result.append(stage.base.step_name)
        result += [step.name for step in stage.steps if step.shown]
    return result


def test_the_steps_of_two_stages_are_named_as_users_know_them() -> None:
    assert names(GO_SERVICE) == [
        "[builder 1/6] FROM docker.io/library/base:latest",
        "[builder 2/6] WORKDIR /build",
        "[builder 3/6] COPY go.mod .",
        "[builder 4/6] RUN go mod download",
        "[builder 5/6] COPY main.go .",
        "[builder 6/6] RUN go build",
        "[stage-1 1/3] FROM docker.io/library/bare:latest",
        "[stage-1 2/3] WORKDIR /app",
        "[stage-1 3/3] COPY --from=builder /build/devops-info-service .",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM bare\nRUN x", ["[1/2] FROM docker.io/library/bare:latest", "[2/2] RUN x"]),
        ("FROM bare AS only\nrun x", ["[1/2] FROM docker.io/library/bare:latest", "[2/2] RUN x"]),
        ("FROM scratch\nCOPY a b\nENV C=d", ["[1/1] COPY a b"]),
        ("FROM scratch\nCOPY --from=bare a b", ["[stage-0 1/1] COPY --from=bare a b"]),
        ("FROM scratch\nRUN --mount=type=tmpfs,target=/t x", ["[stage-0 1/1] RUN --mount=type=tmpfs,target=/t x"]),
        ("FROM bare\nWORKDIR /", ["[1/1] FROM docker.io/library/bare:latest"]),
        ("FROM scratch\nENV X=1\nRUN echo \"$X $Y\" '$X'", ["[1/1] RUN echo \"1 $Y\" '$X'"]),
    ],
)
def test_names_of_other_shapes(text: str, expected: list[str]) -> None:
    assert names(text) == expected


def test_numbers_are_aligned() -> None:
    steps = names("FROM scratch\n" + "RUN x\n" * 10)
    assert (steps[0], steps[9]) == ("[ 1/10] RUN x", "[10/10] RUN x")


def test_stages_that_are_not_needed_are_left_out_and_their_images_not_asked_for() -> None:
    resolver = images()
    graph = planned("FROM absent AS a\nFROM bare AS b\nFROM base AS c\nCOPY --from=b x y\n", resolver)
    assert [stage.name for stage in graph.stages] == ["b", "c"]
    assert [name for name, _ in resolver.asked] == ["bare", "base"]
    assert graph.names == ("a", "b", "c")
    assert graph.target.needs() == (1,)
    assert [stage.name for stage in graph.dependents(1)] == ["c"]
    with pytest.raises(KeyError):
        graph.stage(0)


@pytest.mark.parametrize("target", ["B", "b", "1"])
def test_the_target_is_found_by_name_and_number(target: str) -> None:
    assert planned("FROM bare AS a\nFROM base AS b\nFROM bare AS c", target=target).target.name == "b"


def test_bases_of_all_kinds() -> None:
    graph = planned("FROM scratch AS a\nFROM A AS b\nFROM bare AS c\nCOPY --from=b / /\n")
    assert isinstance(graph.stage(0).base, ScratchBase)
    assert graph.stage(1).base == StageBase(0)
    assert isinstance(graph.stage(2).base, ImageBase)


def test_sources_of_all_kinds() -> None:
    resolver = images()
    resolver.contexts["assets"] = "local"
    graph = planned(
        "FROM scratch AS one\nFROM bare\n"
        "COPY --from=0 a b\nCOPY --from=ONE a b\nCOPY --from=base a b\nCOPY --from=assets a b\nCOPY a b\n"
        "RUN --mount=from=one,target=/x --mount=from=scratch,target=/y --mount=target=/z,rw x\n",
        resolver,
    )
    copies = [step.payload.source for step in graph.target.steps if isinstance(step.payload, CopyStep)]
    assert copies[:2] == [StageSource(0), StageSource(0)]
    assert isinstance(copies[2], ImageSource)
    assert copies[3:] == [ContextSource("assets"), ContextSource()]
    run = graph.target.steps[-1].payload
    assert isinstance(run, RunStep)
    assert run.mounts == (
        BindMount("/x", StageSource(0)),
        BindMount("/y", ScratchSource()),
        BindMount("/z", ContextSource(), read_only=False),
    )
    assert StageSource(0) in graph.target.sources()


def test_a_named_context_stands_in_for_a_stage() -> None:
    resolver = images()
    resolver.contexts["gen"] = "local"
    graph = planned("FROM absent AS gen\nRUN false\nFROM bare\nCOPY --from=gen a b\n", resolver)
    assert isinstance(graph.stages[0].base, ImageBase)
    assert graph.stages[0].base.resolved.kind == "context-local"
    assert graph.stages[0].steps == ()


@pytest.mark.parametrize(
    ("text", "error", "message", "hint", "line"),
    [
        ("FROM bare AS builder\nFROM biulder\n", UnknownStageError, "no stage is named biulder", "builder?", 2),
        ("FROM bare AS builder\nFROM bare\nCOPY --from=bulder a b", UnknownStageError, "bulder", "builder?", 3),
        ("FROM bare\nCOPY --from=7 a b", UnknownStageError, "invalid stage index 7", "from 0 to 0", 2),
        ("FROM bare\nCOPY --from=$X a b", PlanError, "variable expansion is not supported for --from", None, 2),
        ("FROM absent\n", StoreError, "no image absent", None, 1),
        ("ARG X\nFROM $X\n", PlanError, "should not be blank", "--build-arg", 2),
        ("FROM --platform=$NO bare\n", PlanError, "empty platform value", None, 1),
        ("FROM --platform=a/b/c/d bare\n", PlanError, "failed to parse platform", None, 1),
        ("FROM bare AS a\nCOPY --from=b x y\nFROM bare AS b\nFROM a", PlanError, "needs to be defined before", "up", 2),
        ("FROM bare AS a\nCOPY --from=a x y\n", StageCycleError, "circular dependency", "a needs a", 2),
        (
            "FROM bare AS a\nCOPY --from=b x y\nFROM bare AS b\nCOPY --from=a x y\n",
            StageCycleError,
            "circular dependency",
            "a needs b needs a",
            4,
        ),
        ("ARG X\n", PlanError, "no stages to build", None, None),
    ],
)
def test_what_is_refused(
    text: str, error: type[CastoffError], message: str, hint: str | None, line: int | None
) -> None:
    with pytest.raises(error) as caught:
        planned(text)
    assert message in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")
    assert line == (caught.value.location.start_line if caught.value.location else None)


def test_an_unknown_target_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownStageError) as caught:
        planned("FROM bare AS builder\nFROM bare AS runtime\n", target="runtme")
    assert caught.value.hint == "did you mean runtime?"


def test_triggers_of_a_base_run_first_and_are_gone() -> None:
    graph = planned("FROM tools AS a\nRUN own\nFROM bare\nCOPY --from=a /x /y\n")
    assert [step.name for step in graph.stages[0].steps] == [
        "[a 2/4] ONBUILD COPY . /src",
        "[a 3/4] ONBUILD RUN make",
        "[a 4/4] RUN own",
    ]
    assert [step.on_build for step in graph.stages[0].steps] == [True, True, False]
    assert graph.stages[0].config.on_build == ()


def test_triggers_of_a_stage_run_in_the_stage_upon_it_only() -> None:
    graph = planned("FROM bare AS x\nFROM bare AS a\nONBUILD COPY --from=x /1 /2\nFROM a AS b\nFROM b\n")
    assert [stage.name for stage in graph.stages] == ["x", "a", "b", ""]
    assert graph.stage(1).config.on_build == ("COPY --from=x /1 /2",)
    assert [step.created_by for step in graph.stage(2).steps] == ["COPY /1 /2 # buildkit"]
    assert graph.stage(3).steps == ()


def test_the_epoch_of_a_build() -> None:
    assert planned("FROM bare").epoch is None
    assert planned("FROM bare", epoch=5).epoch == 5
    assert planned("ARG SOURCE_DATE_EPOCH=7\nFROM bare").epoch == 7
    assert planned("ARG SOURCE_DATE_EPOCH=7\nFROM bare", build_args=(("SOURCE_DATE_EPOCH", "8"),), epoch=5).epoch == 8
    added = "FROM scratch AS x\nARG A=host\nADD http://$A/f /\nFROM bare"
    assert planned(added, build_args=(("SOURCE_DATE_EPOCH", "x"),)).epoch is None
    asked: list[str] = []

    def time_of(source: str) -> int:
        asked.append(source)
        return 9

    assert planned(added, build_args=(("SOURCE_DATE_EPOCH", "x"),), source_time=time_of).epoch == 9
    assert asked == ["http://host/f"]
    for stage, problem in (
        ("FROM bare AS x\nADD http://h/f /", "must use FROM scratch"),
        ("FROM scratch AS x\nCOPY a /", "does not meet source-only requirements: unsupported COPY instruction"),
        ("FROM scratch AS x", "exactly one remote ADD$"),
        ("FROM scratch AS x\nADD http://h/f http://h/g /", "exactly one remote ADD source"),
        ("FROM scratch AS x\nADD f /", r"single HTTP\(S\) or Git ADD"),
    ):
        with pytest.raises(PlanError, match=problem):
            planned(f"ARG SOURCE_DATE_EPOCH=x\n{stage}\nFROM bare")
    with pytest.raises(PlanError, match="invalid SOURCE_DATE_EPOCH: soon"):
        planned("FROM bare", build_args=(("SOURCE_DATE_EPOCH", "soon"),))


def test_platforms_of_stages() -> None:
    resolver = images()
    text = "FROM --platform=$BUILDPLATFORM base AS b\nARG TARGETARCH\nRUN $TARGETARCH\nFROM bare\nCOPY --from=b x y\n"
    graph = planned(text, resolver, target_platform=ARM64)
    assert resolver.asked == [("base", "linux/amd64"), ("bare", "linux/arm64")]
    assert [str(stage.platform) for stage in graph.stages] == ["linux/amd64", "linux/arm64"]
    run = graph.stages[0].steps[1].payload
    assert isinstance(run, RunStep)
    assert "TARGETARCH=arm64" in run.env


def test_a_base_for_another_platform_is_a_warning() -> None:
    resolver = images()
    resolver.platform = ARM64
    graph = planned("FROM bare\n", resolver)
    assert [warning.rule for warning in graph.warnings] == ["InvalidBaseImagePlatform"]
    assert graph.target.image_platform == ARM64


def test_steps_of_several_platforms_say_which() -> None:
    graph = planned("FROM bare\nRUN x\n", show_platform=True)
    assert graph.target.steps[0].name == "[linux/amd64 2/2] RUN x"


def test_stages_to_run_again() -> None:
    graph = planned("FROM bare AS a\nFROM a AS b\n", no_cache_filter=("A",))
    assert [stage.no_cache for stage in graph.stages] == [True, False]


def test_a_ring_deep_in_a_long_chain_is_found_without_recursion() -> None:
    stages = [f"FROM bare AS s{number}\nCOPY --from=s{number - 1} a b" for number in range(1, 1500)]
    text = "FROM bare AS s0\nCOPY --from=s1499 a b\n" + "\n".join(
        [*stages, "FROM bare AS s1499\nCOPY --from=s1498 a b"]
    )
    with pytest.raises(StageCycleError):
        planned(text)
