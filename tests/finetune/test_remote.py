"""A run on a machine of the Hub: what is sent there trains there, and its model comes into a repository of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from multimodel.errors import AuthenticationFailure, InvalidName, MissingKey, QuotaExceeded
from multimodel.finetune import remote
from multimodel.finetune.types import TrainConfig
from multimodel.hub import job
from multimodel.settings import ApiSettings, ModelSettings, Settings

from ..hub import FakeHub

library = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own call of httpx2


@pytest.fixture
def hub(writable_hub: FakeHub) -> FakeHub:
    return writable_hub


def settings(hub: FakeHub, place: Path, token: str = "hf_good") -> Settings:
    given = {"fine_tuned_dir": place / "remote", "hub_url": hub.url, "offline": False}
    return Settings(models=ModelSettings(**given), api=ApiSettings(hf_token=SecretStr(token) if token else None))  # type: ignore[arg-type]


def config(place: Path) -> TrainConfig:
    return TrainConfig(
        data=str(place / "data.csv"), base=str(place / "encoder"), name="far moods", epochs=2, precision="float32"
    )


@pytest.mark.slow
@library
def test_what_is_sent_trains_there_and_the_model_comes_back(hub: FakeHub, place: Path, tmp_path: Path) -> None:
    sent = remote.submit(config(place), settings(hub, place), flavor="t4-small", timeout="2h")
    assert (sent.stage, sent.over) == ("SCHEDULING", False) and sent.url.endswith(sent.id)
    asked = hub.jobs[sent.id]
    assert (asked["flavor"], asked["timeoutSeconds"]) == ("t4-small", 7200)
    assert asked["secrets"] == {"HF_TOKEN": "hf_good"} and "hf_good" not in str(asked["command"])
    (volume,) = asked["volumes"]
    assert volume["source"] == "ada/far-moods-run" and volume["mountPath"] == job.FILES
    repo = hub.repos["ada/far-moods-run"]
    assert repo.facts["private"] and "multimodel/finetune/__main__.py" in repo.files
    assert not any(str(place).encode() in held for held in repo.files.values()), "a path of this machine was sent"
    for name, held in repo.files.items():  # as the volume shows it
        path = tmp_path / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held)
    script = asked["command"][2].replace(job.FILES, str(tmp_path / "bundle")).replace("/tmp/run", str(tmp_path / "run"))
    steps = [step for step in script.split(" && ") if "pip install" not in step]
    here = {"HF_TOKEN": "hf_good", "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    here |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "MULTIMODEL_TRACKING": "false"}
    done = subprocess.run(
        ["bash", "-c", " && ".join(steps)], env=os.environ | here, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "It is at" in done.stdout
    made = hub.repos["ada/far-moods"]
    assert made.facts["private"] and {"model.safetensors", "config.json", "label_map.json", "README.md"} <= set(
        made.files
    )
    assert "training_metadata.json" not in made.files


@library
def test_a_job_is_looked_at_and_cancelled(hub: FakeHub, place: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    own = settings(hub, place)
    sent = job.submit(tmp_path, "some-run", ["true"], own, image="python:3.11", flavor="cpu-basic", timeout="5m")
    assert job.look(sent.id, own) == sent
    job.cancel(sent.id, own)
    assert job.look(sent.id, own).over
    with pytest.raises(InvalidName):
        job.look("job99", own)


@library
@pytest.mark.parametrize(
    ("token", "fault", "error"),
    [("", 0, MissingKey), ("hf_bad", 0, AuthenticationFailure), ("hf_good", 402, QuotaExceeded)],
)
def test_what_the_hub_refuses(hub: FakeHub, place: Path, tmp_path: Path, token: str, fault: int, error: type) -> None:
    (tmp_path / "x.txt").write_text("x")
    hub.job_fault = fault
    with pytest.raises(error) as caught:
        job.submit(tmp_path, "r", ["true"], settings(hub, place, token), image="i", flavor="cpu-basic", timeout="5m")
    assert caught.value.hint and not hub.jobs
