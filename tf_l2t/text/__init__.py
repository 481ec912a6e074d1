"""Text classification: tasks, word pieces, pre-trained encoders, augmentation, submissions."""

from tf_l2t.text.augmentation import WordVectors, augmented, masked_candidates, neighbours
from tf_l2t.text.encoder_check import check_encoder
from tf_l2t.text.pretrained import Encoder, load_encoder, load_masked_language_model
from tf_l2t.text.submissions import write_submission
from tf_l2t.text.tasks import TASKS, Examples, TextTask, read_glue, read_tsv_folder
from tf_l2t.text.wordpieces import WordPieces

__all__ = ["TASKS", "Encoder", "Examples", "TextTask", "WordPieces", "WordVectors", "augmented", "check_encoder",
           "load_encoder", "load_masked_language_model", "masked_candidates", "neighbours", "read_glue",
           "read_tsv_folder", "write_submission"]
