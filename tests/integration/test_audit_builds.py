"""The audit of real images, made by builds: what each step left in its layer."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from engine_rig import BUSYBOX, Engine, root_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, castoff_command: list[str]) -> Iterator[Engine]:
    """Give an engine that has the image ``busybox``."""
    require = request.getfixturevalue("require")
    require.root()
    require.file(BUSYBOX, "busybox-static")
    for engine in root_engine(castoff_command):
        engine.make_base()
        yield engine


def audited(engine: Engine, image: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code of an audit, and its report."""
    outcome = engine.castoff("audit", "--format", "json", *arguments, image)
    assert outcome.code in (0, 1), outcome.err
    return outcome.code, dict(json.loads(outcome.out))


def test_what_a_build_leaves_in_its_layers(engine: Engine) -> None:
    word = "-----BEGIN " + "PRIVATE KEY-----"
    key = word + "\n" + "MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQC7VJTUt9Us8cKj\n" * 3
    text = """\
FROM busybox
ARG DEPLOY_TOKEN
COPY deploy.key /root/deploy.key
RUN echo $DEPLOY_TOKEN > /dev/null
RUN rm /root/deploy.key && chmod 4755 /bin/busybox
USER app
"""
    context = engine.context({"Dockerfile": text, "deploy.key": key})
    engine.good(context, "--build-arg", "DEPLOY_TOKEN=f3b1c0de77aa9d2e", tag="leaky")
    code, report = audited(engine, "leaky")
    assert code == 1
    found = {(finding["Rule"], finding["Path"]): finding for finding in report["Findings"]}
    buried = found["buried-secret", "/root/deploy.key"]
    assert buried["Instruction"].startswith("COPY deploy.key")
    assert found["setuid", "/bin/busybox"]["Instruction"].startswith("RUN")
    assert ("deleted-file", "/root/deploy.key") in found
    assert any(rule == "secret-in-history" for rule, _path in found)
    assert ("root-user", None) not in found
    assert "f3b1c0de77aa9d2e" not in json.dumps([finding["Message"] for finding in report["Findings"]])


def test_a_policy_makes_it_pass(engine: Engine) -> None:
    policy = os.path.join(engine.folder, "policy.toml")
    with open(policy, "w", encoding="utf-8") as file:
        file.write('[[allow]]\npaths = ["/bin/*", "/sbin/*", "/usr/**"]\nreason = "a base for builders"\n')
        file.write('[rules]\nroot-user = "warning"\n')
    code, report = audited(engine, "busybox", "--policy", policy)
    assert code == 0
    assert report["Passed"]
    assert report["Allowed"] > 1
    assert report["Counts"]["warning"] >= 1
