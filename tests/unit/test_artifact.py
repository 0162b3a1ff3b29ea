"""What may become an artifact, and what an artifact promises."""

import json
from pathlib import Path

import numpy as np
import pytest

from serving.artifact import CONFIG, MARKER, PROBE, WEIGHTS, publish, verify
from serving.errors import ArtifactInvalid
from tests.fakes.adapters import BASE, lora_weights, write_adapter, write_safetensors


def publish_it(source: Path, store: Path, max_rank: int = 16):
    return publish(source, store, base_config=BASE, max_rank=max_rank)


def test_a_sound_adapter_is_published_under_its_digest(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained")

    artifact = publish_it(source, tmp_path / "store")

    assert artifact.path == tmp_path / "store" / artifact.digest
    assert artifact.rank == 8
    assert verify(artifact.path) == artifact


def test_only_settings_weights_and_the_probe_are_taken(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained")
    (source / "training_args.bin").write_bytes(b"pickle")
    (source / "tokenizer.json").write_text("{}")
    (source / PROBE).write_text('{"prompt_token_ids": [1, 2], "logprobs": [-0.5]}')

    artifact = publish_it(source, tmp_path / "store")

    assert {file.name for file in artifact.path.iterdir()} == {CONFIG, WEIGHTS, PROBE, MARKER}


def test_the_digest_depends_on_weights_and_settings_alone(tmp_path: Path) -> None:
    weights = lora_weights()
    one = write_adapter(tmp_path / "one", weights)
    two = write_adapter(tmp_path / "two", weights, base_model_name_or_path="elsewhere")
    backwards = dict(reversed(weights.items()))
    write_safetensors(two / WEIGHTS, backwards, metadata={"format": "pt"})
    louder = write_adapter(tmp_path / "three", weights, lora_alpha=32)

    digests = [publish_it(source, tmp_path / "store").digest for source in (one, two, louder)]

    assert digests[0] == digests[1] != digests[2]


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained")
    first = publish_it(source, tmp_path / "store")
    written = (first.path / MARKER).stat().st_mtime_ns

    again = publish_it(source, tmp_path / "store")

    assert again == first
    assert (first.path / MARKER).stat().st_mtime_ns == written
    assert [entry.name for entry in (tmp_path / "store").iterdir()] == [first.digest]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    weights = lora_weights()
    next(iter(weights.values()))[3, 5] = bad
    source = write_adapter(tmp_path / "trained", weights)

    with pytest.raises(ArtifactInvalid, match="not finite"):
        publish_it(source, tmp_path / "store")

    assert not list(tmp_path.glob("store/*"))


@pytest.mark.parametrize(("bits", "sound"), [(0x3F80, True), (0x7FC0, False), (0xFF80, False)])
def test_bfloat16_weights_are_checked_too(tmp_path: Path, bits: int, sound: bool) -> None:
    weights = {
        name: np.full(array.shape, bits, dtype=np.uint16) for name, array in lora_weights().items()
    }
    source = write_adapter(tmp_path / "trained", weights)

    if sound:
        assert publish_it(source, tmp_path / "store").rank == 8
    else:
        with pytest.raises(ArtifactInvalid, match="not finite"):
            publish_it(source, tmp_path / "store")


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained")
    (source / WEIGHTS).rename(source / "adapter_model.bin")

    with pytest.raises(ArtifactInvalid, match="pickled"):
        publish_it(source, tmp_path / "store")


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
        "base_model.model.score.weight",
    ],
)
def test_what_vllm_does_not_serve_is_refused(tmp_path: Path, name: str) -> None:
    weights = lora_weights() | {name: np.ones((8, 16), dtype=np.float32)}
    if "lm_head" in name:
        weights[name.replace("_A", "_B")] = np.ones((64, 8), dtype=np.float32)
    source = write_adapter(tmp_path / "trained", weights)

    with pytest.raises(ArtifactInvalid, match=r"vLLM serves|only one of"):
        publish_it(source, tmp_path / "store")


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"peft_type": "IA3"},
        {"lora_alpha": 0},
        {"r": "8"},
        {"rank_pattern": {"q_proj": 4}},
        {"init_lora_weights": "pissa"},
    ],
)
def test_settings_that_vllm_does_not_follow_are_refused(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    source = write_adapter(tmp_path / "trained", **settings)

    with pytest.raises(ArtifactInvalid):
        publish_it(source, tmp_path / "store")


def test_a_rank_above_the_engines_is_refused(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained", rank=32)

    with pytest.raises(ArtifactInvalid, match="rank 32 is above the engine's 16"):
        publish_it(source, tmp_path / "store", max_rank=16)


def test_shapes_must_be_of_the_stated_rank(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained", lora_weights(rank=4), rank=8)

    with pytest.raises(ArtifactInvalid, match="not of rank 8"):
        publish_it(source, tmp_path / "store")


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained")
    other = {**BASE, "hidden_size": 24}

    with pytest.raises(ArtifactInvalid, match="another base"):
        publish(source, tmp_path / "store", base_config=other, max_rank=16)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x10\0\0\0\0\0\0\0not json at all!"])
def test_a_damaged_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    source = write_adapter(tmp_path / "trained")
    (source / WEIGHTS).write_bytes(content)

    with pytest.raises(ArtifactInvalid):
        publish_it(source, tmp_path / "store")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained")
    whole = (source / WEIGHTS).read_bytes()
    (source / WEIGHTS).write_bytes(whole[:-10])

    with pytest.raises(ArtifactInvalid, match="does not fit"):
        publish_it(source, tmp_path / "store")


def test_an_adapter_without_weights_is_refused(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained", {})

    with pytest.raises(ArtifactInvalid, match="no tensors"):
        publish_it(source, tmp_path / "store")


def test_an_artifact_that_was_changed_is_found_out(tmp_path: Path) -> None:
    artifact = publish_it(write_adapter(tmp_path / "trained"), tmp_path / "store")
    file = artifact.path / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)

    with pytest.raises(ArtifactInvalid, match="changed"):
        verify(artifact.path)


def test_a_directory_without_a_marker_is_no_artifact(tmp_path: Path) -> None:
    artifact = publish_it(write_adapter(tmp_path / "trained"), tmp_path / "store")
    (artifact.path / MARKER).unlink()

    with pytest.raises(ArtifactInvalid, match="never finished"):
        verify(artifact.path)


def test_a_malformed_probe_is_refused(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "trained")
    (source / PROBE).write_text(json.dumps({"prompt_token_ids": [1, 2, 3], "logprobs": [-1.0]}))

    with pytest.raises(ArtifactInvalid, match="one logprob less"):
        publish_it(source, tmp_path / "store")
