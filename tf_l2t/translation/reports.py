"""The BLEUs of a text that are reported beside each other, whichever way the text is written."""

from __future__ import annotations

from collections.abc import Sequence

from tf_l2t.translation import moses
from tf_l2t.translation.bleu import ReportedBleu, report_bleu


def report_bleus(hypotheses: Sequence[str], references: Sequence[str], language: str, tokenized: bool = False,
                 lower: bool = False) -> dict[str, ReportedBleu]:
    """Corpus BLEU by sacrebleu, of plain text and of tokens in lower case.

    "detokenized": sacrebleu's own tokenization (13a, or the language's) of plain text, case counted unless `lower`;
    tokens are put together first, by Moses' rules. "tokenized_lower": of Moses' tokens in lower case, as papers on
    IWSLT-14 have it.

    Args:
      hypotheses: one line a sentence; lines may be empty.
      references: as many lines.
      language: of both, such as "en".
      tokenized: whether the lines are Moses' tokens, such as those of `iwslt14`; else they are plain text.
      lower: whether the hypotheses are in lower case, as subwords with `lower` make them: the references' case does not
        count then.

    Raises:
      ValueError: as `report_bleu`.
    """
    plain = report_bleu(hypotheses, references, language=language, lower=lower)  # checks the lines
    if tokenized:
        plain = report_bleu(moses.detokenized(hypotheses, language), moses.detokenized(references, language),
                            language=language, lower=lower)
    else:
        hypotheses, references = moses.tokenized(hypotheses, language), moses.tokenized(references, language)
    return {"detokenized": plain, "tokenized_lower": report_bleu(hypotheses, references, "tokenized_lower")}
