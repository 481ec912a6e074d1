"""Every rule of the preparation on lines made by hand, and a miniature of the original archive."""

import io
import tarfile

import pytest

from tf_l2t.translation import moses
from tf_l2t.translation.iwslt import (
    TEST_FILES,
    TRAIN_FILE,
    VARIANTS,
    clean,
    held_out,
    iwslt14,
    segment_lines,
    train_lines,
)
from tf_l2t.translation.text import fingerprint, read_splits, write_splits


def test_tokenized_as_by_moses():
    # What tokenizer.perl prints for these lines.
    assert moses.tokenized(["Don't say \"no\", it's 5,300 & [more]: John vs. Doe, says vs.", "So am I.", "Wait... a|b",
                            "", "He said '90s.", "He said 'yes.'"], "en") == [
        "Don &apos;t say &quot; no &quot; , it &apos;s 5,300 &amp; &#91; more &#93; : John vs. Doe , says vs .",
        "So am I .", "Wait ... a &#124; b", "", "He said &apos; 90s .",
        "He said &apos; yes . &apos;"]
    assert moses.tokenized(["Das iPhone 5.", "z.B. am 3. Mai", "Und dann...", "  Ein\u00a0Satz \t."], "de") == [
        "Das iPhone 5 .", "z.B. am 3. Mai", "Und dann ...", "Ein Satz ."]
    assert moses.tokenized(["rock'n'roll"], "en") == ["rock &apos;n&apos;roll"]
    assert moses.tokenized(["rock'n'roll"], "de") == ["rock &apos; n &apos; roll"]


def test_detokenized_is_the_way_back():
    lines = ["Don't say \"no\", it's 5,300 & [more]: yes!", "So am I."]
    assert moses.detokenized(moses.tokenized(lines, "en"), "en") == lines
    assert moses.detokenized([""], "en") == [""]


def test_metadata_is_dropped_and_tags_are_stripped():
    assert train_lines(["<url>http://a</url>", "<keywords>talks, b</keywords>", "<talkid>1</talkid>",
                        "before <url> after", "<title>A title</title>", "<description>TED: text</description>",
                        " Text .", "", "<speaker>B</speaker>", "<title>a</title><title>b</title>"]) == [
        "A title", "TED: text", " Text .", "", "<speaker>B</speaker>", "ab"]


def test_segments_of_xml():
    assert segment_lines(['<?xml version="1.0"?>', '<doc docid="1" genre="lectures">', "<title>no</title>",
                          '<seg id="1"> It’s late . </seg>', '<seg id="12">No space</seg>  ', "</doc>",
                          '<seg id="3">  </seg>']) == ["It's late .", "No space", ""]


def _cleaned(source, target, **kwargs):
    return list(zip(*clean([source], [target], **{"max_words": 175, **kwargs}), strict=True))


def test_clean_drops_empty_sides():
    assert _cleaned("a", "") == _cleaned(" \t", "b") == _cleaned("", "") == []
    assert _cleaned("a", "", min_words=0) == []
    assert _cleaned("a", "b") == [("a", "b")]


def test_clean_drops_too_short_and_too_long_ones():
    for words, kept in ((49, True), (50, True), (51, False)):
        assert bool(_cleaned("a " * words, "b " * 45, max_words=50)) is kept
        assert bool(_cleaned("a " * 45, "b " * words, max_words=50)) is kept
    assert _cleaned("a b", "c", min_words=2, ratio=9) == [] != _cleaned("a b", "c d", min_words=2)


def test_clean_drops_unlike_lengths():
    # 3 / 2 is 1.5, and not above.
    assert _cleaned("a b c", "d e") == [("a b c", "d e")] and _cleaned("d e", "a b c")
    assert _cleaned("a b c d", "e f") == _cleaned("e f", "a b c d") == _cleaned("a b", "c") == []
    assert _cleaned("a b c d", "e f", ratio=2.0)


def test_clean_drops_long_words():
    assert _cleaned("a" * 1000, "b") and _cleaned("a" * 1001, "b") == _cleaned("b", "a" * 1001) == []


def test_clean_makes_space_single_and_keeps_order_and_case():
    assert clean(["  A \t b ", "", "c"], ["D\u00a0e", "x", "F"], 175) == (["A b", "c"], ["D e", "F"])
    with pytest.raises(ValueError, match="zip"):
        clean(["a"], [], 175)


def test_every_23rd_is_held_out():
    train, dev = held_out([str(i) for i in range(1, 51)])
    assert dev == ["23", "46"] and train == [str(i) for i in range(1, 51) if i not in (23, 46)]
    for variant in VARIANTS.values():
        assert (variant.train + variant.dev) // 23 == variant.dev


def _contents():
    """A file name to its lines. Line i of train, from 1, is "Satz i ." after the metadata."""
    train = {"de": ["<url>u</url>", "<keywords>k</keywords>", "<talkid>1</talkid>", "<title>Der Titel</title>"],
             "en": ["<url>v</url>", "<keywords>l</keywords>", "<talkid>1</talkid>", "<title>The Title</title>"]}
    for i in range(2, 60):
        train["de"].append(f" Satz Nr. {i}, {'lang ' * 60 if i == 30 else ''}." if i != 40 else "")
        train["en"].append(f" Sentence no {i}, {'long ' * 60 if i == 30 else ''}." if i != 50 else "One")
    files = {TRAIN_FILE.format(language=language): lines for language, lines in train.items()}
    for number, file in enumerate(TEST_FILES):
        for language in ("de", "en"):
            word = {"de": "Prüfung", "en": "Test"}[language]
            files[file.format(language=language)] = [
                "<doc>", *(f'<seg id="{i}"> {word} {number}’s {i} </seg>' for i in range(1, 3 + number)), "</doc>"]
    return {file: "\n".join(lines) + "\n" for file, lines in files.items()}


def _archive(path, contents, before="de-en/", kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as archive:
        for file, content in contents.items():
            member = tarfile.TarInfo(before + file)
            member.size, member.type = len(content.encode()), kind
            if kind == tarfile.SYMTYPE:
                member.size, member.linkname = 0, "/etc/hostname"
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def _folder(path, contents):
    path.mkdir(parents=True)
    for file, content in contents.items():
        (path / file).write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def archive(tmp_path):
    return _archive(tmp_path / "de-en.tgz", _contents())


def test_the_miniature(archive):
    splits = iwslt14(str(archive))
    # Of 59 lines line 40 is empty in German, and line 50 too short in English.
    kept = [i for i in range(1, 60) if i not in (40, 50)]
    expected = ["der titel" if i == 1 else f"satz nr. {i} , {'lang ' * 60 if i == 30 else ''}." for i in kept]
    assert splits.dev.source == tuple(expected[22::23]) == (expected[22], expected[45])
    assert splits.train.source == tuple(line for i, line in enumerate(expected, 1) if i % 23)
    assert splits.train.target[:2] == ("the title", "sentence no 2 , .")
    assert all(s.split()[2] == t.split()[2] for s, t in list(zip(*splits.train[:2], strict=True))[1:])
    assert splits.test.source[:4] == ("prüfung 0 &apos; s 1", "prüfung 0 &apos; s 2", "prüfung 1 &apos; s 1",
                                      "prüfung 1 &apos; s 2")
    assert splits.test.target[-1] == "test 4 &apos;s 6" and splits.test.size == 2 + 3 + 4 + 5 + 6
    assert splits.name == "iwslt14_fairseq"


def test_the_record_says_what_was_made(archive):
    splits = iwslt14(str(archive))
    assert splits.about == {
        "source": "iwslt14", "languages": ["de", "en"], "train": 55, "dev": 2, "test": 20, "variant": "fairseq",
        "max_words": 175, "tokenized": "moses", "lower": True, "matches_published": False,
        "published": {"max_words": 175, "train": 160239, "dev": 7283, "test": 6750}, "test_words_en": 80,
        "test_words_match_published": False}


def test_published_sizes_are_recognised(archive, monkeypatch):
    monkeypatch.setitem(VARIANTS, "short", VARIANTS["short"]._replace(train=54, dev=2, test=20))
    monkeypatch.setattr("tf_l2t.translation.iwslt.TEST_WORDS", (80,))
    short = iwslt14(str(archive), "short")
    assert short.dev.place("target", 1) == f"{archive}, dev pairs as prepared (en), pair 2"
    about = short.about
    assert about["matches_published"] and about["test_words_match_published"]


def test_the_short_variant_and_the_other_direction(archive):
    long, short = (iwslt14(str(archive), variant) for variant in ("fairseq", "short"))
    # Line 30 has more than 50 words; the lines after it move up.
    assert [splits.train.size + splits.dev.size for splits in (long, short)] == [57, 56]
    assert not any("lang lang" in line for line in (*short.train.source, *short.dev.source))
    assert short.dev.source == ("satz nr. 23 , .", "satz nr. 48 , .") != long.dev.source and short.test == long.test
    back = iwslt14(str(archive), source="en", target="de")
    assert back.train.source == long.train.target and back.test.target == long.test.source
    assert back.about["test_words_en"] == 80 and back.about["languages"] == ["en", "de"]


def test_folders_give_the_same(archive, tmp_path):
    expected = fingerprint(iwslt14(str(archive)))
    _folder(tmp_path / "unpacked" / "de-en", _contents())
    for path in (tmp_path, tmp_path / "unpacked", tmp_path / "unpacked" / "de-en",
                 _archive(tmp_path / "other.tgz", _contents(), "./de-en/")):
        assert fingerprint(iwslt14(str(path))) == expected
    write_splits(iwslt14(str(archive)), tmp_path / "prepared")
    prepared = read_splits(tmp_path / "prepared")
    assert fingerprint(prepared) == expected and prepared.about["variant"] == "fairseq"


def test_only_plain_members_of_the_exact_names_are_read(tmp_path):
    for before in ("../de-en/", "/de-en/", "x/de-en/"):
        with pytest.raises(ValueError, match=r"has no file de-en/train\.tags"):
            iwslt14(str(_archive(tmp_path / "evil.tgz", _contents(), before)))
    with pytest.raises(ValueError, match=r"has no file de-en/train\.tags"):
        iwslt14(str(_archive(tmp_path / "links.tgz", _contents(), kind=tarfile.SYMTYPE)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tgz", "links.tgz"]


def test_what_is_wrong_is_told(archive, tmp_path):
    for arguments, message in ((("long",), r"variant must be one of \['fairseq', 'short'\]; received 'long'"),
                               (("short", "de", "fr"), "either order; received 'de' and 'fr'"),
                               (("short", "en", "en"), "either order")):
        with pytest.raises(ValueError, match=message):
            iwslt14(str(archive), *arguments)
    with pytest.raises(ValueError, match=r"no IWSLT-14 archive de-en\.tgz"):
        iwslt14(str(tmp_path / "nowhere"))
    (tmp_path / "no.tgz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"no\.tgz is no readable tar archive"):
        iwslt14(str(tmp_path / "no.tgz"))
    (tmp_path / "half.tgz").write_bytes(archive.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"half\.tgz"):
        iwslt14(str(tmp_path / "half.tgz"))
    contents = _contents()
    file = TEST_FILES[1].format(language="en")
    folder = _folder(tmp_path / "short", {**contents, file: contents[file].replace("<seg", "<sog", 1)})
    with pytest.raises(ValueError, match=r"TEDX\.dev2012\.de-en\.de\.xml has 3 sentences and .* has 2"):
        iwslt14(str(folder))
    (folder / file).unlink()
    with pytest.raises(ValueError, match=rf"has no file {file}"):
        iwslt14(str(folder))
    train = TRAIN_FILE.format(language="de")
    (folder / train).write_bytes(b"<url>\nB\xfcro\n")
    with pytest.raises(ValueError, match=r"train\.tags\.de-en\.de, line 2: byte 0xfc"):
        iwslt14(str(folder))
    (folder / train).write_text("eine\n")
    with pytest.raises(ValueError, match=r"has 1 sentences and .* has 59"):
        iwslt14(str(folder))
