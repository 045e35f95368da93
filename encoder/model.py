"""The tokenizer and the network of the encoder."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import DistilBertConfig, DistilBertForMaskedLM

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ID = {token: number for number, token in enumerate(SPECIAL)}
CONTEXT = 512
NO_TOPIC = -100  # what cross_entropy leaves out


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Train a lower-case WordPiece that frames every text with [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    frame = [(token, ID[token]) for token in (CLS, SEP)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", pair=f"{CLS} $A {SEP} $B {SEP}", special_tokens=frame
    )
    return tokenizer


def config(vocabulary: int, width: int, layers: int) -> DistilBertConfig:
    """Describe a DistilBERT with heads of 64."""
    return DistilBertConfig(
        vocab_size=vocabulary,
        dim=width,
        hidden_dim=4 * width,
        n_layers=layers,
        n_heads=width // 64,
        max_position_embeddings=CONTEXT,
        pad_token_id=ID[PAD],
    )


def waves(positions: int, width: int) -> Tensor:
    """Return sine and cosine position embeddings, (positions, width), as in "Attention is all you need" (2017), 3.5.

    They are small beside the words, and only where positions start from: those beyond the training texts stay so.
    """
    rate = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * rate
    return 0.02 * torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def build(vocabulary: int, width: int, layers: int) -> DistilBertForMaskedLM:
    """Build an untrained network; on short sequences plain attention learns faster than the fused one."""
    network = DistilBertForMaskedLM(config(vocabulary, width, layers))
    network.set_attn_implementation("eager")
    with torch.no_grad():
        network.distilbert.embeddings.position_embeddings.weight.copy_(waves(CONTEXT, width))
    return network


class Learner(nn.Module):
    """A network with what it needs only while it learns: a table of topics beside the words."""

    def __init__(self, network: DistilBertForMaskedLM, topics: int) -> None:
        super().__init__()
        self.network = network
        self.topic_embeddings = nn.Parameter(0.02 * torch.randn(topics, network.config.dim))

    def losses(self, ids: Tensor, targets: Tensor, topics: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss on masked words and the loss on the topic, read from the first token.

        `ids` is (texts, tokens), padded; `targets` holds the right id where one is to be predicted, else -100;
        `topics` is (texts,), NO_TOPIC where there is none. Only chosen tokens pass through the large output layer.
        """
        hidden = self.network.distilbert(ids, (ids != ID[PAD]).long()).last_hidden_state
        chosen = targets != NO_TOPIC
        masked = cross_entropy(self.words(hidden[chosen]).float(), targets[chosen])
        scores = hidden[:, 0] @ self.topic_embeddings.T
        topic = cross_entropy(scores.float(), topics, ignore_index=NO_TOPIC, reduction="sum")
        return masked, topic / (topics != NO_TOPIC).sum().clamp(min=1)

    def words(self, hidden: Tensor) -> Tensor:
        """Return the scores of all words, (tokens, vocabulary), as DistilBertForMaskedLM does."""
        network = self.network
        hidden = network.vocab_layer_norm(network.activation(network.vocab_transform(hidden)))
        scores: Tensor = network.vocab_projector(hidden)
        return scores
