"""Uploads, against a hub in memory."""

import json
import shutil
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from safetensors.numpy import load_file

from clp_jax.cli import main
from clp_jax.convert import convert_checkpoint
from clp_jax.errors import UserError
from clp_jax.push import push_model

HARNESS = {
    "results": {"hellaswag_de": {"acc,none": 0.3, "acc_stderr,none": 0.01}},
    "config": {"model_args": "pretrained=/home/me/secret", "token": "hf_secret"},
}


def answer(status):
    return SimpleNamespace(status_code=status, headers={}, request=None)


class Hub(HfApi):
    """Repositories by name: what is private, and the contents of files by branch."""

    def __init__(self):
        super().__init__()
        self.private, self.branches, self.status = {}, {}, None

    def _refuse(self, repo_id):
        if self.status:
            raise HfHubHTTPError(f"status {self.status}", response=answer(self.status))
        if repo_id not in self.private:
            raise RepositoryNotFoundError("none", response=answer(404))

    def model_info(self, repo_id):
        self._refuse(repo_id)
        return SimpleNamespace(private=self.private[repo_id])

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        if repo_id not in self.private:
            self.private[repo_id] = private
            self.branches[repo_id, None] = {".gitattributes": b""}
        self._refuse(repo_id)

    def create_branch(self, repo_id, *, branch, exist_ok):
        assert exist_ok
        self.branches.setdefault((repo_id, branch), dict(self.branches[repo_id, None]))

    def list_repo_files(self, repo_id, *, revision):
        return [*self.branches[repo_id, revision]]

    def create_commit(self, repo_id, operations, *, commit_message, revision):
        self.message = commit_message
        for operation in operations:
            with operation.as_file() as file:
                self.branches[repo_id, revision][operation.path_in_repo] = file.read()
        return SimpleNamespace(commit_url=f"https://hub.test/{repo_id}/commit/1")


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr("clp_jax.push.HfApi", lambda: hub)
    monkeypatch.setattr("clp_jax.push.get_token", lambda: "hf_secret")
    return hub


@pytest.fixture
def model(tiny_model, tmp_path):
    """A folder with more in it than a model, and a file of results."""
    (tmp_path / "results.json").write_text(json.dumps(HARNESS))
    folder = shutil.copytree(tiny_model, tmp_path / "mine")
    for name in ("optimizer.pt", "train.log", ".env", ".model.partial.safetensors", "notes.json"):
        (folder / name).write_text("hf_secret")
    return folder


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_model_card_and_results_go_and_nothing_else(hub, model, tmp_path):
    push = push_model(model, "org/mine", results=[tmp_path / "results.json"], private=True)
    sent = hub.branches["org/mine", None]
    assert {".gitattributes", *push.sizes} == sent.keys() > {"config.json", "model.safetensors"}
    assert sent["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert not any(b"secret" in content for content in sent.values())
    head = yaml.safe_load(sent["README.md"].decode().split("---\n")[1])
    [result] = head["model-index"][0]["results"]
    assert (result["dataset"]["name"], result["metrics"][0]["value"]) == ("hellaswag_de", 0.3)
    assert json.loads(sent["results.json"])["tasks"][0]["score"] == 0.3
    assert hub.private == {"org/mine": True}
    assert str(push).endswith("https://hub.test/org/mine/commit/1")
    again = push_model(model, "org/mine", revision="v2", commit_message="Again")
    assert (hub.message, again.revision) == ("Again", "v2")
    assert hub.branches["org/mine", "v2"]["config.json"] == sent["config.json"]


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_a_run_is_exported_first(hub, model, tmp_path):
    convert_checkpoint(model, tmp_path / "run", "orbax")
    push_model(tmp_path / "run", "org/mine")
    sent = hub.branches["org/mine", None]
    (tmp_path / "sent.safetensors").write_bytes(sent["model.safetensors"])
    before, after = (
        load_file(f) for f in (model / "model.safetensors", tmp_path / "sent.safetensors")
    )
    assert {name: x.tobytes() for name, x in before.items()} == {
        name: x.tobytes() for name, x in after.items()
    }
    assert not any("checkpoint" in name or "optimizer" in name for name in sent)


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_a_dry_run_needs_neither_network_nor_token(model, monkeypatch, capsys):
    monkeypatch.setattr("clp_jax.push.get_token", lambda: None)
    before = sorted(model.iterdir())
    main(["push", str(model), "org/mine", "--dry-run", "--private", "--revision", "v1"])
    shown = capsys.readouterr().out
    assert "To org/mine, branch v1, private if it is new:" in shown
    size = (model / "model.safetensors").stat().st_size
    assert f"{size:,}" in shown
    assert "library_name: transformers" in shown
    assert "secret" not in shown
    assert sorted(model.iterdir()) == before


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_mistakes_are_one_sentence(hub, model, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^a b is not the name of a repository"):
        push_model(model, "a b")
    with pytest.raises(UserError, match=r"is neither a run nor a Hugging Face folder"):
        push_model(tmp_path, "org/mine")
    (model / "README.md").write_text("---\na: [1\n---\n")
    with pytest.raises(UserError, match=r"README.md has no valid metadata"):
        push_model(model, "org/mine")
    (model / "README.md").unlink()
    hub.private["org/open"] = False
    with pytest.raises(UserError, match=r"^org/open exists and is public"):
        push_model(model, "org/open", private=True)
    hub.branches["org/open", None] = {"pytorch_model.bin": b"", "notes.txt": b""}
    with pytest.raises(UserError, match=r"org/open has other content \(notes.txt, pytorch_model"):
        push_model(model, "org/open")
    for status, message in ((403, "refuses your token"), (500, "cannot be written")):
        hub.status = status
        with pytest.raises(UserError, match=f"org/open {message}"):
            push_model(model, "org/open")
    monkeypatch.setattr(hub, "model_info", lambda _: 1 / 0)
    with pytest.raises(UserError, match=r"org/open cannot be reached \(ZeroDivisionError\)"):
        push_model(model, "org/open")
    monkeypatch.setattr("clp_jax.push.get_token", lambda: None)
    with pytest.raises(UserError, match=r"org/mine needs a token: set HF_TOKEN"):
        push_model(model, "org/mine")
    assert hub.branches["org/open", None].keys() == {"pytorch_model.bin", "notes.txt"}
