"""UMT5 through transformers: a prompt in, features out; run once a prompt.

Its weights (11 GB in bfloat16) either stay on the device, or rest on the host and visit it block by
block while a prompt is encoded, so that at most one block (0.4 GB) is there at a time.

Shapes: M tokens of a prompt, D features.
"""

from __future__ import annotations

import html
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from streamgen.errors import CheckpointError, ConfigError, install_command
from streamgen.models.checkpoint_kinds import Kind, kind_of
from streamgen.models.file_text import reason_of
from streamgen.models.loading import finite_copy
from streamgen.models.wan.text_names import TIED, Umt5Sizes, infer_sizes, to_transformers
from streamgen.models.weights_file import WeightsFile, open_weights
from streamgen.ops.backend import computed_aside

TEXT_LEN = 512  # tokens; what lies behind is not read (Wan-Video/Wan2.1, wan/configs, text_len)
MAX_DISTANCE = 128  # of the relative position bias, from which on all are one (wan/modules/t5.py)
EPS = 1e-6
TEXT_PLACES = ("models_t5_umt5-xxl-enc-bf16.pth", "text_encoder")  # in a folder of a whole model
TOKENIZER_PLACES = ("google/umt5-xxl", "tokenizer")
_MISFIT = "the file is no encoder of UMT5 (models_t5_umt5-xxl-enc-bf16.pth), or it is incomplete"


class TextPlace(Enum):
    """Where the weights are while no prompt is being encoded."""

    DEVICE = "device"
    HOST = "host"


class Umt5TextEncoder:
    """A TextEncoder with an open vocabulary."""

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        place: TextPlace,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`network` is a UMT5EncoderModel with its weights on the host; features come in `dtype`.

        Raises ConfigError if weights are to stay on the host and accelerate is not installed.
        """
        self._tokenizer = tokenizer
        self._device = device
        self._dtype = dtype
        self._network = network
        if place is TextPlace.DEVICE or device.type == "cpu":
            network.to(device)
        else:
            _offload([*network.encoder.block, network.encoder.final_layer_norm], device)

    takes_long = True

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        """Features [M, D] of a prompt, its end token included; at most 512 tokens of it are read.

        Without padding: a padded run masks the padding and zeroes what comes out of it.
        """
        ids = self._tokenizer(cleaned(prompt), truncation=True, max_length=TEXT_LEN).input_ids
        table = self._network.shared.weight

        def features_MD() -> Tensor:
            ids_1M = torch.tensor([ids], device=table.device)
            embedded_1MD = functional.embedding(ids_1M, table).to(self._device)
            encoded = self._network.encoder(inputs_embeds=embedded_1MD)
            return encoded.last_hidden_state[0].to(self._dtype)

        return computed_aside(features_MD, self._device)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return ()


def cleaned(prompt: str) -> str:
    """A prompt as prompts were cleaned in training: mended, unescaped, one space between words."""
    import ftfy

    mended = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return " ".join(mended.split())


def load_text_encoder(
    weights: Path | str,
    tokenizer: Path | str | None,
    *,
    place: TextPlace,
    device: torch.device,
    dtype: torch.dtype,
) -> Umt5TextEncoder:
    """The text encoder of the published file, or of a folder that holds a whole model.

    `tokenizer` is a folder; None: it is looked for beside the weights. Weights keep the dtype of
    their file (float16, in which T5 overflows, becomes bfloat16); features come in `dtype`.
    Raises CheckpointError, naming file, key and cause, if it cannot be used; ConfigError if
    transformers is not installed.
    """
    found = _tokenizer_folder(Path(weights).expanduser(), tokenizer)
    words = _load_tokenizer(found)
    file = open_text_weights(weights)
    network = _filled(file)
    if len(words) > (known := network.shared.weight.shape[0]):
        raise CheckpointError(
            f"{found}: the tokenizer has {len(words)} tokens, {file.path} knows {known}; "
            f"set the tokenizer that belongs to the text encoder"
        )
    return Umt5TextEncoder(network, words, place=place, device=device, dtype=dtype)


def open_text_weights(weights: Path | str) -> WeightsFile:
    """The encoder's file; CheckpointError if there is none, or if it is of another kind."""
    place = Path(weights).expanduser()
    if place.is_dir():
        place = next((place / name for name in TEXT_PLACES if (place / name).exists()), place)
    file = open_weights(place)
    kind = kind_of(file.tensors)
    if kind is not Kind.TEXT_ENCODER:
        called = "of unknown contents" if kind is Kind.UNKNOWN else f"a {kind.value}"
        raise CheckpointError(
            f"{file.path}: is not a {Kind.TEXT_ENCODER.value} but {called}; set the path of the "
            f"text encoder's own weights"
        )
    return file


def check_text_encoder(file: WeightsFile) -> Umt5Sizes:
    """The sizes of an encoder all of whose weights are there; CheckpointError otherwise."""
    return _matched(file)[1]


def _filled(file: WeightsFile) -> Any:
    keys, sizes = _matched(file)
    network = _empty_network(file, sizes)
    names = {key: name for name, key in keys.items()}
    for key, stored in file.read(list(names)):
        module, _, leaf = names[key].rpartition(".")
        tensor = finite_copy(
            stored, device=torch.device("cpu"), dtype=_kept(stored.dtype), file=file, key=key
        )
        network.get_submodule(module).load_state_dict({leaf: tensor}, strict=False, assign=True)
    network.encoder.embed_tokens.weight = network.shared.weight
    return network.eval().requires_grad_(False)


def _matched(file: WeightsFile) -> tuple[dict[str, str], Umt5Sizes]:
    """transformers' name to the file's own key, and the sizes; strict, reads no tensor."""
    keys = {to_transformers(key): key for key in sorted(file.tensors, key=lambda key: key == TIED)}
    shapes = {name: file.tensors[key].shape for name, key in keys.items()}
    try:
        sizes = infer_sizes(shapes)
    except KeyError as error:
        raise CheckpointError(f"{file.path}: {error.args[0]} is missing; {_MISFIT}") from error
    except ValueError as error:
        raise CheckpointError(f"{file.path}: {error}; {_MISFIT}") from error
    expected = _empty_network(file, sizes).state_dict()
    expected.pop(TIED, None)
    for name in expected:
        if name not in keys:
            raise CheckpointError(f"{file.path}: {name} is missing; {_MISFIT}")
    for name, key in keys.items():
        if name not in expected:
            raise CheckpointError(f"{file.path}: {key} is unexpected; {_MISFIT}")
        wanted = tuple(expected[name].shape)
        if shapes[name] != wanted:
            raise CheckpointError(
                f"{file.path}: {key} is {shapes[name]}, the encoder needs {wanted}; {_MISFIT}"
            )
    file.require_floating(keys.values())
    return keys, sizes


def _empty_network(file: WeightsFile, sizes: Umt5Sizes) -> Any:
    """transformers' encoder of these sizes, its weights without memory behind them."""
    try:
        from transformers import UMT5Config, UMT5EncoderModel
    except ImportError as error:
        raise ConfigError(
            f"{file.path}: the text encoder needs transformers ({error}); install it: "
            f"{install_command('models')}"
        ) from error
    config = UMT5Config(
        vocab_size=sizes.vocabulary,
        d_model=sizes.dim,
        d_kv=sizes.head_dim,
        d_ff=sizes.ffn_dim,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        relative_attention_num_buckets=sizes.num_buckets,
        relative_attention_max_distance=MAX_DISTANCE,
        layer_norm_epsilon=EPS,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    with torch.device("meta"):
        return UMT5EncoderModel(config)


def _kept(stored: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if stored.itemsize == 1 or stored is torch.float16 else stored


def _offload(modules: list[Any], device: torch.device) -> None:
    try:
        from accelerate import cpu_offload
    except ImportError as error:
        raise ConfigError(
            f"a text encoder that rests on the host needs accelerate ({error}); install it: "
            f'{install_command("models")}, or set wan.text_place = "device"'
        ) from error
    for module in modules:
        cpu_offload(module, execution_device=device)


def _tokenizer_folder(weights: Path, tokenizer: Path | str | None) -> Path:
    if tokenizer is not None:
        return Path(tokenizer).expanduser()
    roots = (weights, weights.parent, weights.parent.parent)
    for root in roots:
        for place in TOKENIZER_PLACES:
            if (root / place).is_dir():
                return root / place
    raise CheckpointError(
        f"{weights}: there is no tokenizer beside it ({' or '.join(TOKENIZER_PLACES)}); "
        f"set wan.tokenizer"
    )


def _load_tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").is_file() and not (folder / "spiece.model").is_file():
        raise CheckpointError(
            f"{folder}: holds no tokenizer (tokenizer.json or spiece.model); check the path"
        )
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ConfigError(
            f"the text encoder needs transformers ({error}); install it: "
            f"{install_command('models')}"
        ) from error
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a library's parsers raise anything on a damaged file
        raise CheckpointError(
            f"{folder}: the tokenizer cannot be read ({reason_of(error)}); download it again"
        ) from error
