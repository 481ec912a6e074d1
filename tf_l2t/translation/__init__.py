"""Translation: text and subwords, decoding, BLEU and its expectation, the losses of sentences."""

from tf_l2t.translation.batches import EncodedText, TokenPair, bucketed_batches, encode_pairs, eval_batches
from tf_l2t.translation.bleu import (
    ReportedBleu,
    check_language,
    corpus_bleu,
    ngram_statistics,
    prefix_rewards,
    report_bleu,
    sentence_bleu,
)
from tf_l2t.translation.decoding import Beams, beam_search, greedy, sample
from tf_l2t.translation.expected_bleu import (
    expected_corpus_bleu,
    expected_ngram_statistics,
    expected_sentence_bleu,
    relaxed_corpus_bleu,
)
from tf_l2t.translation.iwslt import iwslt14
from tf_l2t.translation.reports import report_bleus
from tf_l2t.translation.subwords import BOS, EOS, PAD, UNK, Subwords
from tf_l2t.translation.text import (
    Origin,
    ParallelText,
    TextSplits,
    embedded_help,
    fingerprint,
    read_parallel,
    read_splits,
    read_tsv,
    split_text,
    write_splits,
)
from tf_l2t.translation.text_translator import Decoding, TextForm, TextTranslator, load_translator
from tf_l2t.translation.tfds_text import read_translation_tfds
from tf_l2t.translation.token_losses import TokenLoss, token_log_probs, token_nll

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "UNK",
    "Beams",
    "Decoding",
    "EncodedText",
    "Origin",
    "ParallelText",
    "ReportedBleu",
    "Subwords",
    "TextForm",
    "TextSplits",
    "TextTranslator",
    "TokenLoss",
    "TokenPair",
    "beam_search",
    "bucketed_batches",
    "check_language",
    "corpus_bleu",
    "embedded_help",
    "encode_pairs",
    "eval_batches",
    "expected_corpus_bleu",
    "expected_ngram_statistics",
    "expected_sentence_bleu",
    "fingerprint",
    "greedy",
    "iwslt14",
    "load_translator",
    "ngram_statistics",
    "prefix_rewards",
    "read_parallel",
    "read_splits",
    "read_translation_tfds",
    "read_tsv",
    "relaxed_corpus_bleu",
    "report_bleu",
    "report_bleus",
    "sample",
    "sentence_bleu",
    "split_text",
    "token_log_probs",
    "token_nll",
    "write_splits",
]
